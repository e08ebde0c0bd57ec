#!/usr/bin/env python3
"""Writes model/text/unicode_tables.inc and model/text/entities.inc.

Needs: the `regex` package (grapheme and word properties), ftfy (its capitals of entity names).
Tables are committed; run it again only to move to another Unicode version.
"""
import html.entities
import os
import unicodedata
from importlib import metadata

import ftfy.chardata
import regex

TEXT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "model", "text", "")
LAST = 0x110000
SURROGATES = range(0xD800, 0xE000)


def regex_unicode():
    found = regex_search(r"supports Unicode ([0-9.]+[0-9])", metadata.metadata("regex").get_payload())
    return found or "unknown"


def regex_search(pattern, text):
    m = regex.search(pattern, text)
    return m.group(1) if m else None


def members(prop):
    return {ord(c) for c in regex.findall(r"\p{%s}" % prop, EVERYTHING)}


EVERYTHING = "".join(chr(c) for c in range(LAST) if c not in SURROGATES)


def ranges(value):
    """{code point: value} → [(first, last, value)]"""
    out = []
    for c in sorted(value):
        if out and out[-1][1] == c - 1 and out[-1][2] == value[c]:
            out[-1][1] = c
        else:
            out.append([c, c, value[c]])
    return out


def rows(f, items, per_line):
    for i in range(0, len(items), per_line):
        f.write("    " + " ".join(items[i : i + per_line]) + "\n")


def c_string(s):
    """UTF-8 in C, escapes only where they cannot be mistaken for more digits"""
    return '"' + "".join("\\%03o" % b if b < 32 or b > 126 or b in b'"\\?' else chr(b) for b in s.encode()) + '"'


def breaks():
    kinds = ["CR", "LF", "Control", "Extend", "ZWJ", "Regional_Indicator", "Prepend", "SpacingMark", "L", "V", "T"]
    value = {}
    for i, k in enumerate(kinds):
        for c in members("GCB=" + k):
            value[c] = i + 1
    for c in members("ExtPict"):
        value[c] = value.get(c, 0) | 0x40
    for i, k in enumerate(["Consonant", "Linker", "Extend"]):
        for c in members("InCB=" + k):
            value[c] = value.get(c, 0) | (i + 1) << 4
    return ranges(value)


def nfc():
    single, pairs, ccc = [], [], {}
    for c in range(LAST):
        ch = chr(c)
        if unicodedata.combining(ch):
            ccc[c] = unicodedata.combining(ch)
        d = unicodedata.decomposition(ch)
        if not d or d.startswith("<"):
            continue
        p = [int(x, 16) for x in d.split()]
        single.append((c, p[0], p[1] if len(p) > 1 else 0))
        if len(p) == 2 and unicodedata.normalize("NFC", ch) == ch:
            pairs.append((p[0], p[1], c))
    return single, sorted(pairs), ranges(ccc)


def unicode_tables():
    single, pairs, ccc = nfc()
    with open(TEXT + "unicode_tables.inc", "w") as f:
        f.write("/* Made by tests/golden/make_tables.py; do not edit.\n")
        f.write(" * decompositions, compositions, combining, width: Unicode %s (Python's unicodedata)\n"
                % unicodedata.unidata_version)
        f.write(" * breaks, words: Unicode %s (regex %s) */\n" % (regex_unicode(), metadata.version("regex")))
        f.write("\n/* canonical, one level; second 0: a singleton */\n")
        f.write("static const struct decomposition decompositions[] = {\n")
        rows(f, ["{0x%X,0x%X,0x%X}," % x for x in single], 4)
        f.write("};\n\n/* primary composites by (first, second); exclusions are absent */\n")
        f.write("static const struct composition compositions[] = {\n")
        rows(f, ["{0x%X,0x%X,0x%X}," % x for x in pairs], 4)
        f.write("};\n\n/* canonical combining class, where it is not 0 */\n")
        f.write("static const struct range combining[] = {\n")
        rows(f, ["{0x%X,0x%X,%d}," % tuple(x) for x in ccc], 5)
        f.write("};\n\n/* NFKC of U+FF01..FFEF where it differs, at most two code points */\n")
        f.write("static const struct decomposition widths[] = {\n")
        w = [(c, unicodedata.normalize("NFKC", chr(c))) for c in range(0xFF01, 0xFFF0)]
        w = [(c, [ord(x) for x in s] + [0]) for c, s in w if s != chr(c)]
        assert all(len(s) <= 3 for _, s in w)
        rows(f, ["{0x%X,0x%X,0x%X}," % (c, s[0], s[1]) for c, s in w], 4)
        f.write("};\n\n/* grapheme cluster break | Indic conjunct break << 4 | Extended_Pictographic << 6;\n")
        f.write(" * LV and LVT syllables are computed */\n")
        f.write("static const struct range breaks[] = {\n")
        rows(f, ["{0x%X,0x%X,%d}," % tuple(x) for x in breaks()], 5)
        f.write("};\n\n/* \\w of Unicode regular expressions: Alphabetic, M, Nd, Pc, Join_Control */\n")
        f.write("static const struct range words[] = {\n")
        word = {c: 1 for p in ("Alphabetic", "M", "Nd", "Pc", "Join_Control") for c in members(p)}
        rows(f, ["{0x%X,0x%X,1}," % tuple(x[:2]) for x in ranges(word)], 5)
        f.write("};\n")


def entities():
    standard = html.entities.html5
    capitals = {k[1:]: v for k, v in ftfy.chardata.HTML_ENTITIES.items() if k[1:] not in standard}
    table = sorted([(k, v, 0) for k, v in standard.items()] + [(k, v, 1) for k, v in capitals.items()],
                   key=lambda x: x[0].encode())
    with open(TEXT + "entities.inc", "w") as f:
        f.write("/* Made by tests/golden/make_tables.py; do not edit.\n")
        f.write(" * The HTML 5 named character references (Python's html.entities.html5, %d names) in byte\n"
                % len(standard))
        f.write(" * order, and the %d capitals that ftfy %s adds (last field 1). */\n"
                % (len(capitals), metadata.version("ftfy")))
        f.write("static const struct entity entities[] = {\n")
        rows(f, ['{"%s",%s,%d},' % (k, c_string(v), e) for k, v, e in table], 3)
        f.write("};\n")


unicode_tables()
entities()
