// The sentencepiece library behind a C door; see spiece.h. The only C++ file of the tree.
#include "model/text/spiece.h"

#include <sentencepiece_processor.h>

#include <algorithm>
#include <cctype>
#include <cstring>
#include <fstream>
#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>

namespace
{

constexpr int kDefaultSentinels = 100; // T5's extra_ids
constexpr int kMaxSentinels = 100000;

struct Spiece {
    sentencepiece::SentencePieceProcessor processor;
    std::vector<std::pair<std::string, int>>
        specials; // cut out of the text before the model sees it
    std::vector<std::string> sentinels; // <extra_id_N>, behind the model's own pieces
    int end_of_text = 1;
};

// "extra_ids": N of the tokenizer_config.json beside the model.
int SentinelCount(const std::string &model)
{
    std::string path = model.substr(0, model.find_last_of('/') + 1) + "tokenizer_config.json";
    std::ifstream file(path, std::ios::binary);
    std::string text(1 << 20, '\0');
    file.read(&text[0], static_cast<std::streamsize>(text.size()));
    text.resize(static_cast<size_t>(std::max<std::streamsize>(file.gcount(), 0)));
    size_t at = text.find("\"extra_ids\"");
    if (at == std::string::npos) return kDefaultSentinels;
    at += std::strlen("\"extra_ids\"");
    while (at < text.size() &&
           (std::isspace(static_cast<unsigned char>(text[at])) || text[at] == ':'))
        at++;
    int n = 0;
    while (at < text.size() && std::isdigit(static_cast<unsigned char>(text[at])) &&
           n <= kMaxSentinels)
        n = n * 10 + (text[at++] - '0');
    return std::min(n, kMaxSentinels);
}

const Spiece *Of(const void *sp) { return static_cast<const Spiece *>(sp); }

// The special whose text begins at s[at], longest first; nullptr when there is none.
const std::pair<std::string, int> *SpecialAt(const Spiece &p, const std::string &s, size_t at)
{
    for (const auto &x : p.specials)
        if (s.compare(at, x.first.size(), x.first) == 0) return &x;
    return nullptr;
}

std::vector<int> EncodeAll(const Spiece &p, const std::string &text)
{
    std::vector<int> ids;
    std::string rest;
    auto flush = [&] {
        std::vector<int> part;
        if (!rest.empty()) p.processor.Encode(rest, &part);
        ids.insert(ids.end(), part.begin(), part.end());
        rest.clear();
    };
    for (size_t i = 0; i < text.size();) {
        const auto *special = SpecialAt(p, text, i);
        if (!special) {
            rest += text[i++];
            continue;
        }
        flush();
        ids.push_back(special->second);
        i += special->first.size();
    }
    flush();
    return ids;
}

} // namespace

extern "C" int spiece_open(void **sp, const char *path, struct err *e)
try {
    *sp = nullptr;
    auto p = std::make_unique<Spiece>();
    auto status = p->processor.Load(path);
    if (!status.ok())
        return err_set(e, ERR_INPUT, "%s: not a SentencePiece model (%.200s)", path,
                       status.ToString().c_str());
    int size = p->processor.GetPieceSize();
    p->end_of_text = p->processor.eos_id();
    if (p->end_of_text < 0)
        return err_set(e, ERR_INPUT, "%s: the model has no end-of-text piece", path);
    for (int id = 0; id < size; id++)
        if (p->processor.IsControl(id) || p->processor.IsUnknown(id))
            p->specials.emplace_back(p->processor.IdToPiece(id), id);
    int n = SentinelCount(path);
    for (int i = 0; i < n; i++) { // appended in reverse, as T5's tokenizers do
        p->sentinels.push_back("<extra_id_" + std::to_string(n - 1 - i) + ">");
        p->specials.emplace_back(p->sentinels.back(), size + i);
    }
    std::stable_sort(p->specials.begin(), p->specials.end(),
                     [](const auto &a, const auto &b) { return a.first.size() > b.first.size(); });
    *sp = p.release();
    return 0;
} catch (const std::exception &x) {
    return err_set(e, ERR_RESOURCE, "%s: %.200s", path, x.what());
}

extern "C" void spiece_close(void *sp) { delete static_cast<Spiece *>(sp); }

extern "C" int spiece_size(const void *sp)
{
    return Of(sp)->processor.GetPieceSize() + static_cast<int>(Of(sp)->sentinels.size());
}

extern "C" const char *spiece_piece(const void *sp, int id)
{
    const Spiece &p = *Of(sp);
    int size = p.processor.GetPieceSize();
    if (id < 0 || id >= spiece_size(sp)) return nullptr;
    return id < size ? p.processor.IdToPiece(id).c_str()
                     : p.sentinels[static_cast<size_t>(id - size)].c_str();
}

extern "C" int spiece_encode(const void *sp, int *ids, int max, int *n, bool *truncated,
                             const char *text, struct err *e)
try {
    if (max < 1) return err_set(e, ERR_BUG, "no room for the end-of-text id");
    std::vector<int> all = EncodeAll(*Of(sp), text);
    *truncated = all.size() > static_cast<size_t>(max - 1);
    if (*truncated) all.resize(static_cast<size_t>(max - 1));
    all.push_back(Of(sp)->end_of_text);
    std::copy(all.begin(), all.end(), ids);
    *n = static_cast<int>(all.size());
    return 0;
} catch (const std::exception &x) {
    return err_set(e, ERR_RESOURCE, "tokenizing: %.200s", x.what());
}
