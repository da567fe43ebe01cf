"""Superfluous white space in prose: at the ends of lines, in runs of spaces, in runs of blank lines.

Only what is certainly prose is touched. Left as it is: fenced code, indented lines, tables, anything with quotation marks or inline
code in its paragraph, lines with characters of code or mathematics, and texts with preformatted markup.
"""

from __future__ import annotations

import re

from farthing_optimizer.blocks import blocks

BLANK_LINES_MAX = 2
_RUN = re.compile(r"(?<=\S)  +(?=\S)")
_COLUMN_GAP = re.compile(r"(?<=[^\s.!?:;,])  +(?=\S)")
_COLUMN_GAPS_MAX = 1
_NOT_PROSE = re.compile(r"[|\t{}\[\]<>=;\\_#$*/~^+@&%]|\d  |  \d|    ")
_QUOTES = re.compile(r"[\"`“”„‟«»‹›「」『』＂]|(?<!\w)['‘’]")
_PREFORMATTED = re.compile(r"<(?:pre|code|textarea|script|style|xmp|listing)\b|\\begin\{", re.IGNORECASE)
_TRAILING = " \t"


def tidied(text: str) -> str:
    """The text without superfluous white space. Words, numbers, code and quotations keep every byte. Linear time."""
    if not _worth_a_look(text) or _PREFORMATTED.search(text) or text.isspace():
        return text
    kept: list[str] = []
    quoted = after_indented = False
    for block in blocks(text):
        if block.language is not None:
            kept.extend(block.lines)
            after_indented = False
        elif block.blank:
            kept.extend(block.lines if quoted or after_indented else [""] * min(len(block.lines), BLANK_LINES_MAX))
        else:
            paragraph = block.text
            plain = not quoted and not _QUOTES.search(paragraph)
            quoted ^= _leaves_open(paragraph, quoted)
            kept.extend(_tidied_lines(block.lines) if plain else block.lines)
            after_indented = block.lines[-1][:1].isspace()
    return "\n".join(kept)


def _worth_a_look(text: str) -> bool:
    if "  " in text or text[-1:] in (" ", "\t"):
        return True
    return "\n" in text and (" \n" in text or "\t\n" in text or "\n\n\n\n" in text)


def _tidied_lines(lines: tuple[str, ...]) -> list[str]:
    """A paragraph's lines without superfluous spaces. More than one gap that follows no punctuation looks like columns, and stays."""
    trimmed = [line if line[:1].isspace() else line.rstrip(_TRAILING) for line in lines]
    gaps = sum(len(_COLUMN_GAP.findall(line)) for line in trimmed if "  " in line)
    if gaps > _COLUMN_GAPS_MAX:
        return trimmed
    return [_RUN.sub(" ", line) if "  " in line and _is_prose(line) else line for line in trimmed]


def _is_prose(line: str) -> bool:
    return not line[:1].isspace() and not _NOT_PROSE.search(line)


def _leaves_open(paragraph: str, quoted: bool) -> bool:
    """Whether a paragraph changes from inside to outside a quotation or back: an odd mark is one whose partner is elsewhere."""
    if paragraph.count('"') % 2:
        return True
    balance = paragraph.count("“") + paragraph.count("„") + paragraph.count("«") - paragraph.count("”") - paragraph.count("»")
    return balance < 0 if quoted else balance > 0
