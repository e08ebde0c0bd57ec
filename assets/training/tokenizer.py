"""Trains the vocabulary on captions and writes it twice: spiece.model and tokenizer.json, which give equal ids.

Unigram with case folding and byte fallback: capitals are no other words, and a word or sign nobody foresaw falls into
bytes instead of one <unk>.
"""
import io
import json
import random
from pathlib import Path

import sentencepiece as spm

from captions import ADJECTIVES, ADVERBS, IDLE, OPENINGS, TAILS, nonsense, sample

SPECIAL = [("<pad>", 0), ("</s>", 1), ("<unk>", 2)]


def train(folder, captions=40000, seed=11):
    rng, folder = random.Random(seed), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lines = [sample(rng).caption for _ in range(captions)]
    # plain English in small doses, so that unseen words fall into syllables rather than letters
    lines += [" ".join(rng.choice(IDLE + ADJECTIVES + ADVERBS + OPENINGS + TAILS) for _ in range(8))
              for _ in range(captions // 20)]
    lines += [" ".join(nonsense(rng) for _ in range(8)) for _ in range(captions // 40)]
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, vocab_size=1900, hard_vocab_limit=False, model_type="unigram",
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, byte_fallback=True, character_coverage=1.0, num_threads=2,
        normalization_rule_name="nmt_nfkc_cf", minloglevel=2)
    (folder / "spiece.model").write_bytes(model.getvalue())
    write_json(folder)
    return spm.SentencePieceProcessor(model_proto=model.getvalue())


def write_json(folder):
    from base64 import b64encode
    from sentencepiece import sentencepiece_model_pb2 as pb

    proto = pb.ModelProto.FromString((folder / "spiece.model").read_bytes())
    space = dict(type="Metaspace", replacement="▁", prepend_scheme="always", split=True)
    a, b, end = [{"Sequence": dict(id=i, type_id=0)} for i in "AB"] + [{"SpecialToken": dict(id="</s>", type_id=0)}]
    normalizer = [dict(type="Precompiled", precompiled_charsmap=b64encode(
        proto.normalizer_spec.precompiled_charsmap).decode()), dict(type="Strip", strip_left=True, strip_right=True),
        dict(type="Replace", pattern=dict(Regex=" {2,}"), content="▁")]
    fast = dict(
        version="1.0", truncation=None, padding=None,
        added_tokens=[dict(id=i, content=c, single_word=False, lstrip=False, rstrip=False, normalized=False,
                           special=True) for c, i in SPECIAL],
        normalizer=dict(type="Sequence", normalizers=normalizer), pre_tokenizer=space,
        post_processor=dict(type="TemplateProcessing", single=[a, end], pair=[a, end, b, end],
                            special_tokens={"</s>": dict(id="</s>", ids=[1], tokens=["</s>"])}),
        decoder=dict(type="Sequence", decoders=[dict(type="ByteFallback"), space]),
        model=dict(type="Unigram", unk_id=2, byte_fallback=True, vocab=[[p.piece, p.score] for p in proto.pieces]))
    (folder / "tokenizer.json").write_text(json.dumps(fast, ensure_ascii=False))
    (folder / "tokenizer_config.json").write_text(json.dumps(dict(
        tokenizer_class="PreTrainedTokenizerFast", pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
        model_max_length=512, clean_up_tokenization_spaces=False), indent=1))
