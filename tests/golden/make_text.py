#!/usr/bin/env python3
"""Goldens of model/text: cleaned prompts, token ids, UMT5 outputs.

Needs: ftfy, sentencepiece, tokenizers, transformers, torch, safetensors, protobuf. From the root:
    python3 tests/golden/make_text.py            all of it
    python3 tests/golden/make_text.py emoji      only what depends on assets/emoji

Writes into tests/golden/data:
    text_versions.txt            what made them
    text_clean.json              [[prompt, cleaned, cleaned without ftfy], ...]
    text_prompts.json            the prompts whose ids follow
    text_tok_NAME/tokenizer.json tiny tokenizers, NAME = old new bytes spm odd
    text_ids.json                {NAME: [[ids], ...]}
    text_spiece/                 a folder with spiece.model and no tokenizer.json; its ids: text_ids_spiece.json
    text_ids_emoji.json          [[ids], ...] of assets/emoji/tokenizer
    text_umt5_tiny.{json,txt,safetensors}  config, tensors, ids and outputs of a tiny random encoder
    text_umt5_emoji.safetensors  ids and outputs of assets/emoji/text_encoder
"""
import html
import json
import os
import random
import re
import struct
import sys
import tempfile
from importlib import metadata

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
DATA = os.path.join(HERE, "data")
EMOJI = os.path.join(ROOT, "assets", "emoji")
MAX_LENGTH = 512
sys.path.insert(0, HERE)


def dump(name, value):
    with open(os.path.join(DATA, name), "w") as f:
        json.dump(value, f, ensure_ascii=False, separators=(",", ":"))
        f.write("\n")


# ---- prompts ------------------------------------------------------------------------------------

NEGATIVE = ("色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，"
            "JPEG压缩残留，丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，"
            "手指融合，静止不动的画面，杂乱的背景，三条腿，背景人很多，倒着走")
NEGATIVE_EN = ("Bright tones, overexposed, static, blurred details, subtitles, style, works, paintings, images, static, "
               "overall gray, worst quality, low quality, JPEG compression residue, ugly, incomplete, extra fingers, "
               "poorly drawn hands, poorly drawn faces, deformed, disfigured, misshapen limbs, fused fingers, still "
               "picture, messy background, three legs, many people in the background, walking backwards")

SENTENCES = """A cat walks on the grass, realistic style.
Two anthropomorphic cats in comfy boxing gear fight intensely on a spotlighted stage.
a rocket flies up in outer space
a big shark moves left underwater
a dog moves right and a butterfly circles around in a grassy field
A stylish woman walks down a Tokyo street filled with warm glowing neon and animated city signage.
Drone view of waves crashing against the rugged cliffs along Big Sur's Garay Point beach.
An old man with a long grey beard, wearing a red-and-white scarf, sits by the fire; he smiles.
Time-lapse: clouds roll over 3,000 m peaks at dawn (4K, 60 fps).
The camera pans slowly from left to right -- then stops.
"What a day!" she said, and the crowd roared: hurrah, hurrah!!!
ONE TWO three FOUR, mixed CaSe WoRdS
supercalifragilisticexpialidocious antidisestablishmentarianism
x
I
the the the the the the
e=mc^2 and a_b_c + {d} [e] <f> |g| ~h~ `i` \\j\\ /k/
http://example.org/path?q=1&r=2#frag
user@example.org, +1 (555) 010-9999, $1,299.99, 50%
A robot named R2-D2's cousin
Un chat marche sur l'herbe mouillée, à l'été, œuvre d'art naïve.
Ein großer Bär läuft über die Straße; süße Äpfel, Öl und Übermut.
El niño pingüino salió corriendo: ¡qué rápido! ¿verdad?
Žluťoučký kůň úpěl ďábelské ódy.
Zażółć gęślą jaźń
İstanbul'da ışıklı bir gece
Việt Nam: một con mèo đi trên cỏ
Кошка идёт по траве, реалистичный стиль.
Η γάτα περπατά στο γρασίδι
חתול הולך על הדשא
قطة تمشي على العشب
एक बिल्ली घास पर चल रही है
แมวเดินอยู่บนหญ้า
고양이가 잔디 위를 걷는다
猫が草の上を歩いている。
一只猫在草地上行走，写实风格。
火箭飛向太空，星星閃爍
北京的夜晚，霓虹灯闪烁；人们在街上行走。
「静かな湖」に映る富士山、朝焼け
ｶﾀｶﾅ と カタカナ と ひらがな
გამარჯობა მსოფლიო
Բարեւ աշխարհ
ሰላም ልዑል
ශ්‍රී ලංකා
မင်္ဂလာပါ
ខ្មែរ
བོད་ཡིག""".split("\n")

WHITESPACE = ["", " ", "  ", "   a", "a   ", "a  b", "a   b    c", "\t", "a\tb", "a\nb", "a\r\nb", "\n\n", "a \n b",
              "a\u00a0b", "a\u3000b", "\u3000a\u3000", "a\u2003b\u2009c", "a\u200bb", "a\u2028b", "a\u0085b",
              "\u2581", "\u2581a", "a\u2581b", "\u2581\u2581a", "a \u2581 b", " \u2581", "a\u000bb\u000cc"]

SPECIAL = ["</s>", "<pad>", "<unk>", "a</s>", "</s>a", "a </s> b", "a</s></s>b", "the end</s>and more", "<extra_id_0>",
           "<extra_id_0> dog <extra_id_1>", "a<extra_id_9>b", "<extra_id_299>", "<extra_id_300>", "<extra_id_0",
           "< /s>", "<s>", "<0x41>", "<0x0A>x", "</S>", "<pad><pad>", "x <unk> y", "<UNK>", "[MASK] token", "a[KEEP]b",
           "a [KEEP] b", "a[WORD]b", "a [WORD] b", "Loud", "loud", "ＬＯＵＤ", "(loud)", "  [LEFT]  [RIGHT]  x"]

UNICODE = ["Ａ", "ＡＢＣ　１２３", "ｆｕｌｌ－ｗｉｄｔｈ，！？", "héllo", "he\u0301llo", "e\u0301", "e\u0301\u0301", "\u0301",
           "\u0301a", "a\u0327\u0301", "a\u0301\u0327", "n\u0303 o\u0308 u\u030a", "ﬁve ﬂags ﬃ ﬆ", "①②③ ⅣⅤ ㎏ ㎡ ℃ №", "½ ¼ ²³ ₄",
           "™ © ®", "… — – ‐ ‑ ‘’ “” «»", "Å \u212b \u2126", "Ｃ\u0327", "カ\u3099 か\u3099 ﾊﾟ ｶﾞ", "\u1100\u1161\u11a8 각 \ud55c\uae00",
           "क्क\u0301", "\u0915\u094d\u0937", "ก\u0e33", "\ufb1d \ufb2a", "ﷺ", "\u0130 \u0131 ß ẞ ſ", "Ǆ ǅ ǆ", "\u00ad soft\u00adhyphen",
           "\ufeffbom", "a\u200db", "a\u200cb", "©\u200d© ©\u200dx", "\u200d", "\ufe0f", "x\ufe0f", "\u202eabc\u202c",
           "\U0001d4d0\U0001d4d1 \U0001d7d8", "\U00020000\U0002f800", "\U0010ffff", "\ue000", "\u0378", "\ufffd", "\ufffe"]

EMOJI_TEXT = ["🚀", "🚀 flies up", "a 🐶 and a 🐱", "👨‍👩‍👧‍👦 family", "👩🏽‍🚀 astronaut", "🏳️‍🌈 flag", "🇩🇪🇫🇷🇯🇵", "🇩🇪🇫", "❤️‍🔥", "☺☺️", "1️⃣2️⃣",
              "🧑‍💻💥🔥✨", "👍🏿👍", "🫠🫡", "\U0001f9ff\u200d\U0001f9ff", "✂︎✂️", "🐈‍⬛", "👁️‍🗨️", "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"]

CONTROL = ["a\u0001b", "\u0007bell", "a\u007fb", "a\u0080b", "a\u009fb", "\u001b[31mred\u001b[0m"]


def random_prompts(n):
    r = random.Random(20240607)
    blocks = [(0x20, 0x7E), (0x20, 0x7E), (0xA0, 0x24F), (0x300, 0x36F), (0x370, 0x52F), (0x5D0, 0x6FF), (0x900, 0x97F),
              (0x1100, 0x11FF), (0x1E00, 0x1FFF), (0x2000, 0x206F), (0x2070, 0x218F), (0x2460, 0x27BF), (0x3000, 0x30FF),
              (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xF900, 0xFAFF), (0xFB00, 0xFDFF), (0xFE00, 0xFE6F), (0xFF00, 0xFFEF),
              (0x1D400, 0x1D7FF), (0x1F1E6, 0x1F1FF), (0x1F300, 0x1FAFF), (0x20000, 0x2A6DF)]
    out = []
    for _ in range(n):
        few = r.sample(blocks, r.randint(1, 4))
        out.append("".join(chr(r.randint(*r.choice(few))) for _ in range(r.randint(1, 24))))
    return out


def prompts():
    r = random.Random(7)
    words = " ".join(SENTENCES[:20]).split()
    long = " ".join(r.choice(words) for _ in range(600))
    out = SENTENCES + [NEGATIVE, "镜头晃动，" + NEGATIVE, NEGATIVE_EN] + WHITESPACE + SPECIAL + UNICODE + EMOJI_TEXT + CONTROL
    out += [long, long[:900], "字" * 700, "a" * 1500, "🚀" * 300, NEGATIVE * 6]
    out += random_prompts(40)
    assert len(out) >= 200 and not any("\0" in p for p in out)
    return out


# ---- cleaning -----------------------------------------------------------------------------------

CLEAN = ["ﬁve “A” &amp;amp; Ｂ，　c", "", " ", "plain", "  a  b\t\nc ", "&lt;b&gt; bold", "<b> &amp; </b>", "<b>\n&amp;\n&lt;",
         "&amp;\n<i>\n&amp;", "&amp;amp;amp;amp;amp; deep", "P&EACUTE;REZ &NTILDE; &SZLIG; &nTILDE;", "&eacute &eacute; &notit; &notin; &no",
         "&ampamp; &AMP; &Amp; &AMP", "&copy2024 &copy;2024 &reg", "&#65;&#x42;&#X43;&#67 &#x44", "&#0; &#1; &#9; &#13; &#127; &#128; &#133; &#150;",
         "&#xD800; &#x110000; &#99999999999999999999; &#xFFFE; &#xFDD0; &#x1FFFF;", "&#59; &#x3b; &#38;amp; &#x26;lt;", "&#12ab; &#xZZ; &# &#; &;",
         "&hellip;&mdash;&nbsp;&ensp;x", "&NotEqualTilde; &bne; &fjlig; &acE;", "&CounterClockwiseContourIntegral; &HilbertSpace;",
         "&zigrarr; &ZIGRARR; &thetasym &amacr; &AMACR;", "&lt;a href=&quot;x&quot;&gt;", "&apos;q&apos; &quot;r&quot;", "a & b && c &x; &xy;",
         "&veryveryveryverylongentityname; x", "&notavery;&leaf;", "‘single’ “double” ‚low„ ʼn ŉ", "‟‛ ′ ″", "Ĳsland ĳs Ǆ ǅ ǆ Ǉ ǈ ǉ Ǌ ǋ ǌ Ǳ ǲ ǳ",
         "ﬀ ﬁ ﬂ ﬃ ﬄ ﬅ ﬆ", "ＬＯＵＤ　ＮＯＩＳＥＳ", "Ｕﾀｰﾝ ﾊﾟﾋﾟ ｶﾞ", "￠￡￢￣￤￥￦ ￨￩￪￫￬￭￮", "ﾡﾢ ￂￃ ￞ﾞﾟ", NEGATIVE, "镜头晃动，" + NEGATIVE, NEGATIVE_EN,
         "a\r\nb\rc\nd\u2028e\u2029f\u0085g", "\u001b[36;44mI'm blue\u001b[0m da ba dee", "\u001b[31", "\u001b[;;;m x \u001b]0;t\u0007", "a\u0001b",
         "a\u0007\u0008\u000b\u000c\u000e\u001f\u007fb", "\u206a\u206fx\ufeff\ufff9\ufffa\ufffb\ufffcy", "\u200b\u200c\u200d\u200e keep",
         "e\u0301 n\u0303 A\u030a \u212b \u2126 \u1e9b\u0323", "a\u0327\u0301 a\u0301\u0327 q\u0307\u0323", "\u1100\u1161\u11a8 \u1112\u1161\u11ab\u1100\u1173\u11af",
         "\u0958 \u0929 \ufb1f \u2adc \U0001d15e", "\u0344 \u0340 \u0341 \u0343 \u0374 \u037e \u0387", "\uf900 \ufa0e \U0002f800", "\u0b92\u0bd7 \u0cc6\u0cd5 \u0dd9\u0dcf\u0dca",
         "\u00a0nbsp\u00a0", "\u1680ogham\u180e", "\u2000\u2001\u2007\u200a x \u202f y \u205f z \u3000", "a\u001cb\u001db\u001eb\u001fb", "\u001c \u001fa \u001d b \u001e", "\u0085a\u0085 \u0085b\u180e",
         "👨‍👩‍👧‍👦 &#128104;&#x200d;&#128105; 🏳️‍🌈", "🚀🚀 &#x1F680;", "Schön &ouml; Ö", "naïve café", "日本語テキスト、句読点。", "한국어 문장.", "Привет, «мир»",
         "שלום עולם", "مرحبا بالعالم", "line one\n  line two  \n\nline three", "tabs\tand\tmore\t\t", "&nbsp;&nbsp;trim&nbsp;", "&Tab;&NewLine;x&Tab;",
         "1 &lt; 2 &amp;&amp; 3 &gt; 2", "x&sup2; + y&sup3; &#8800; &infin;", "&frac12; &frac14 &frac34;", "it&#39;s &#8217;quoted&#8217;", "&lsquo;a&rsquo; &ldquo;b&rdquo;",
         "&para;&parallel;&para", "&sect &section; &sectx", "&times &timesb; &timesbar;", "&LT;&GT;&LTx&GTy", "&uml; &UML; &Uml;", "&AElig &aelig; &AELIG;",
         "&ETH; &eth; &THORN; &thorn", "&shy;soft&shy;hyphen", "&zwj;&zwnj;&lrm;&rlm;", "&#x2028;&#x2029;x", "&bsol;n &bsol;t", "A&#778;", "e&#x301;", "&Aring; &angst;",
         "\u0041\u030a\u0301 \u01fb", "½ stays, ² stays, ™ stays", "…dots", "fi\u200dligature", "ſtrange ß", "©2024 ®", "\ufb05 \ufb06", "«guillemets» ‹single›",
         "&amp;lt;b&amp;gt; &amp;#65;", "&amp;#x26;amp;", "& amp;", "&am", "&", "&&&&", "trailing &", "&#", "&#x", "&lt", "&lt;", "&ltcc;", "&ltcc",
         "C1 \u0096 dash \u0091x\u0092", "\u0080\u0081\u008d"]


def clean():
    import ftfy
    from diffusers.pipelines.wan import pipeline_wan

    def plain(s):
        return pipeline_wan.whitespace_clean(html.unescape(html.unescape(s)).strip())

    rows, guessed = [], 0
    for s in CLEAN + prompts():
        want = pipeline_wan.prompt_clean(s)
        ours = pipeline_wan.whitespace_clean(html.unescape(html.unescape(ftfy.fix_text(s, fix_encoding=False))).strip())
        if want != ours:  # ftfy guessed another encoding, which ditgen leaves out
            guessed += 1
            want = ours
        rows.append([s, want, plain(s)])
    # text over one limit repeats others and would only be long
    rows = [r for r in rows if len(r[0]) < 1200]
    assert len(rows) >= 100
    dump("text_clean.json", rows)
    print("cleaning:", len(rows), "strings;", guessed, "where the encoding guesser changed more")
    return len(rows), guessed


# ---- tiny tokenizers ----------------------------------------------------------------------------


def charsmap_rules(blob):
    """[(source, replacement)] of a SentencePiece charsmap, by walking its double array."""
    size = struct.unpack_from("<I", blob)[0]
    units = struct.unpack_from("<%dI" % (size // 4), blob, 4)
    text = blob[4 + size:]
    out = []

    def offset(u):
        return (u >> 10) << ((u & 0x200) >> 6)

    def walk(pos, key):
        for c in range(1, 256):
            at = pos ^ c
            if at >= len(units) or units[at] & 0x800000FF != c:
                continue
            nxt = at ^ offset(units[at])
            if units[at] & 0x100:
                v = units[nxt] & 0x7FFFFFFF
                out.append((key + bytes([c]), text[v:text.index(b"\0", v)]))
            walk(nxt, key + bytes([c]))

    walk(offset(units[0]), b"")
    return [(a.decode(), b.decode()) for a, b in out]


def rules_wanted(src):
    """A part of nmt_nfkc that keeps the tiny files small."""
    c = [ord(x) for x in src]
    if len(c) == 1:
        return (c[0] < 0x250 or 0x2000 <= c[0] < 0x2070 or 0x2100 <= c[0] < 0x2130 or 0x2460 <= c[0] < 0x2470 or
                0xFB00 <= c[0] < 0xFB07 or 0xFF01 <= c[0] < 0xFF9E or c[0] in (0x3000, 0x0E33, 0xFEFF, 0xFFFD))
    return all(x < 0x7F or 0x300 <= x < 0x30D for x in c) or src in ("\r\n", "か\u3099", "カ\u3099")


def train(name, rules, folder, **options):
    import sentencepiece as spm

    tsv = os.path.join(folder, "rules.tsv")
    with open(tsv, "w") as f:
        for a, b in rules:
            f.write(" ".join("%X" % ord(x) for x in a) + "\t" + " ".join("%X" % ord(x) for x in b) + "\n")
    corpus = os.path.join(folder, "corpus.txt")
    with open(corpus, "w") as f:
        for _ in range(3):
            for s in SENTENCES + [NEGATIVE, NEGATIVE_EN]:
                f.write(s + "\n")
    model = os.path.join(folder, name)
    spm.SentencePieceTrainer.Train(input=corpus, model_prefix=model, model_type="unigram", pad_id=0, eos_id=1, bos_id=2, unk_id=3,
                                   hard_vocab_limit=False, character_coverage=0.98, normalization_rule_tsv=tsv,
                                   minloglevel=2, num_threads=1, **options)
    return model + ".model"


def proto_of(path):
    from sentencepiece import sentencepiece_model_pb2

    m = sentencepiece_model_pb2.ModelProto()
    with open(path, "rb") as f:
        m.ParseFromString(f.read())
    return m


def build(proto, normalizer, pre, byte_fallback, sentinels=10, added=()):
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    vocab = [(p.piece, p.score) for p in proto.pieces]
    vocab += [("<extra_id_%d>" % i, 0.0) for i in range(sentinels - 1, -1, -1)]
    t = Tokenizer(models.Unigram(vocab, unk_id=proto.trainer_spec.unk_id, byte_fallback=byte_fallback))
    t.normalizer = normalizers.Sequence(normalizer)
    t.pre_tokenizer = pre
    special = ["<pad>", "</s>", "<s>", "<unk>"] + ["<extra_id_%d>" % i for i in range(sentinels)]
    t.add_special_tokens([AddedToken(x, special=True, normalized=False) for x in special])
    t.add_tokens(list(added))
    t.post_processor = processors.TemplateProcessing(single="$A </s>", pair="$A </s> $B </s>",
                                                     special_tokens=[("</s>", t.token_to_id("</s>"))])
    t.decoder = decoders.Metaspace()
    return t


def save(t, name, edit=None):
    d = json.loads(t.to_str())
    if edit:
        edit(d)
    folder = os.path.join(DATA, "text_tok_" + name)
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, "tokenizer.json")
    with open(path, "w") as f:
        json.dump(d, f, ensure_ascii=False, separators=(",", ":"))
        f.write("\n")
    return path


def tiny_tokenizers():
    import sentencepiece as spm
    from tokenizers import AddedToken, Regex, normalizers, pre_tokenizers
    from transformers.convert_slow_tokenizer import SpmConverter

    with tempfile.TemporaryDirectory() as folder:
        full = os.path.join(folder, "full")
        with open(full + ".txt", "w") as f:
            f.write("\n".join(SENTENCES))
        spm.SentencePieceTrainer.Train(input=full + ".txt", model_prefix=full, vocab_size=400, hard_vocab_limit=False, minloglevel=2,
                                       normalization_rule_name="nmt_nfkc")
        rules = [r for r in charsmap_rules(proto_of(full + ".model").normalizer_spec.precompiled_charsmap) if rules_wanted(r[0])]
        plain = proto_of(train("plain", rules, folder, vocab_size=700))
        fallback = proto_of(train("fallback", rules, folder, vocab_size=800, byte_fallback=True))
    charsmap = plain.normalizer_spec.precompiled_charsmap
    print("charsmap:", len(rules), "rules,", len(charsmap), "bytes")
    pre = normalizers.Precompiled(charsmap)
    meta = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")

    def old_form(d):  # as files written before prepend_scheme existed
        d["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "str_rep": "▁", "add_prefix_space": True}
        del d["model"]["byte_fallback"]

    paths = {}
    paths["old"] = save(build(plain, [pre, normalizers.Replace(Regex(" {2,}"), " ")], meta, False), "old", old_form)
    paths["new"] = save(build(plain, [pre, normalizers.Strip(left=False, right=True), normalizers.Replace(Regex(" {2,}"), "▁")],
                              meta, False), "new")
    paths["bytes"] = save(build(fallback, [pre, normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), "▁")],
                                pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), meta]), True), "bytes")
    # the form transformers 5 makes of a bare spiece.model
    t = SpmConverter.build_tokenizer_from_spm_proto(fallback, [(p.piece, p.score) for p in fallback.pieces])
    from tokenizers import processors

    t.add_special_tokens(["<pad>", "</s>", "<s>", "<unk>"])
    t.post_processor = processors.TemplateProcessing(single="$A </s>", pair="$A $B </s>", special_tokens=[("</s>", 1)])
    paths["spm"] = save(t, "spm")
    spiece(fallback)
    odd = [AddedToken("[MASK]", lstrip=True), AddedToken("[KEEP]", normalized=False), AddedToken("[WORD]", single_word=True, normalized=False),
           AddedToken("[LEFT]", lstrip=True, normalized=False), AddedToken("[RIGHT]", rstrip=True, normalized=False), AddedToken("ＬＯＵＤ"),
           AddedToken("token", single_word=True)]
    paths["odd"] = save(build(plain, [pre, normalizers.Replace("ß", "ss"), normalizers.Prepend(">"), normalizers.NFC()],
                              pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False), False, 3, odd), "odd")
    return paths


class Slow:
    """What T5Converter wants to know of a tokenizer that reads spiece.model itself."""

    def __init__(self, path, sentinels):
        self.vocab_file, self._extra_ids = path, sentinels

    def convert_tokens_to_ids(self, name):
        return [p.piece for p in proto_of(self.vocab_file).pieces].index(name)


def spiece(proto):
    """A folder with spiece.model alone, and the ids of the tokenizer.json that the converter makes of it."""
    from transformers.convert_slow_tokenizer import T5Converter
    from tokenizers import AddedToken

    folder = os.path.join(DATA, "text_spiece")
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, "spiece.model")
    with open(path, "wb") as f:
        f.write(proto.SerializeToString(deterministic=True))
    with open(os.path.join(folder, "tokenizer_config.json"), "w") as f:
        json.dump({"tokenizer_class": "T5Tokenizer", "extra_ids": 10, "model_max_length": 512}, f, indent=1)
        f.write("\n")
    t = T5Converter(Slow(path, 10)).converted()
    special = ["<unk>"] + ["<extra_id_%d>" % i for i in range(10)]
    t.add_special_tokens([AddedToken(x, special=True, normalized=False) for x in special])
    dump("text_ids_spiece.json", ids_by(t, prompts()))


def ids_of(path, texts):
    from tokenizers import Tokenizer

    return ids_by(Tokenizer.from_file(path), texts)


def ids_by(t, texts):
    t.no_padding()
    t.enable_truncation(MAX_LENGTH)
    return [t.encode(s).ids for s in texts]


# ---- UMT5 ---------------------------------------------------------------------------------------


def encoder_outputs(model, rows, dtype):
    import torch

    model = model.to(dtype).eval()
    with torch.no_grad():
        return [model(torch.tensor([r])).last_hidden_state[0].float().contiguous() for r in rows]


def umt5_tiny():
    import numpy as np
    import torch
    from safetensors.torch import save_file
    from transformers import UMT5Config, UMT5EncoderModel

    import tiny

    config = UMT5Config(vocab_size=600, d_model=32, d_kv=12, num_heads=4, d_ff=64, num_layers=2, feed_forward_proj="gated-gelu",
                        dropout_rate=0.0, relative_attention_num_buckets=32, relative_attention_max_distance=128)
    config.architectures = ["UMT5EncoderModel"]
    model = UMT5EncoderModel(config)
    lines = []
    with torch.no_grad():
        for name, t in model.state_dict().items():
            if name == "encoder.embed_tokens.weight":  # tied to shared.weight
                continue
            t.copy_(torch.from_numpy(tiny.default(name, tuple(t.shape))))
            lines.append(" ".join([name] + [str(d) for d in t.shape]))
    with open(os.path.join(DATA, "text_umt5_tiny.txt"), "w") as f:
        f.write("\n".join(lines) + "\n")
    with open(os.path.join(DATA, "text_umt5_tiny.json"), "w") as f:
        f.write(config.to_json_string(use_diff=False))
    r = np.random.RandomState(5)
    rows = [[1], r.randint(0, 600, 9).tolist(), r.randint(0, 600, 203).tolist()]
    out = {}
    for i, (ids, x) in enumerate(zip(rows, encoder_outputs(model, rows, torch.float32))):
        out["ids.%d" % i] = torch.tensor(ids, dtype=torch.int32)
        out["fp32.%d" % i] = x
    for i, x in enumerate(encoder_outputs(model, rows, torch.bfloat16)):
        out["bf16.%d" % i] = x.clone()
    save_file(out, os.path.join(DATA, "text_umt5_tiny.safetensors"))


EMOJI_PROMPTS = ["", "a rocket flies up in outer space", "a dog moves right and a butterfly circles around in a grassy field",
                 "a pink octopus bounces at sunset"]


def emoji():
    import torch
    from safetensors.torch import save_file
    from transformers import UMT5EncoderModel

    path = os.path.join(EMOJI, "tokenizer", "tokenizer.json")
    dump("text_ids_emoji.json", ids_of(path, prompts()))
    rows = ids_of(path, EMOJI_PROMPTS)
    model = UMT5EncoderModel.from_pretrained(os.path.join(EMOJI, "text_encoder"), dtype=torch.float32)
    out = {}
    for i, (ids, x) in enumerate(zip(rows, encoder_outputs(model, rows, torch.float32))):
        out["ids.%d" % i] = torch.tensor(ids, dtype=torch.int32)
        out["fp32.%d" % i] = x
    for i, x in enumerate(encoder_outputs(model, rows, torch.bfloat16)):
        out["bf16.%d" % i] = x.clone()
    save_file(out, os.path.join(DATA, "text_umt5_emoji.safetensors"),
              {"prompts": "\n".join(EMOJI_PROMPTS)})  # one key: their order in the file is not fixed


def versions(notes):
    import unicodedata

    with open(os.path.join(DATA, "text_versions.txt"), "w") as f:
        f.write("python %s\nunicodedata %s\n" % (sys.version.split()[0], unicodedata.unidata_version))
        for p in ("diffusers", "ftfy", "numpy", "regex", "safetensors", "sentencepiece", "tokenizers", "torch", "transformers"):
            f.write("%s %s\n" % (p, re.sub(r"\+.*", "", metadata.version(p))))
        f.write(notes)


if __name__ == "__main__":
    os.makedirs(DATA, exist_ok=True)
    if sys.argv[1:] != ["emoji"]:
        count, guessed = clean()
        dump("text_prompts.json", prompts())
        paths = tiny_tokenizers()
        dump("text_ids.json", {k: ids_of(v, prompts()) for k, v in paths.items()})
        umt5_tiny()
        versions("cleaning: %d strings, %d where ftfy's guesser of encodings changed more and was switched off\n" % (count, guessed))
    emoji()
