"""Makes text of a corpus safe to stand between the tags of a prompt."""

import re
import unicodedata

# Whitespace that is neither a space, a tab nor a line feed: shown as one of these.
_SPACES = str.maketrans(dict.fromkeys("\r\x0b\x0c\x1c\x1d\x1e\x1f\x85", " ") | {"\u2028": "\n", "\u2029": "\n"})
# Control characters, and characters without a shape that can hide or turn text around. Joiners, marks of direction
# and soft hyphens stay: scripts and emoji need them.
_UNSEEN = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u200b\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f\U000e0100-\U000e01ef]"
)
_TOOLS = "AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|ARGS|CALL_ID"
_MEDIA = "IMG|IMG_BREAK|IMG_END|AUDIO|BEGIN_AUDIO|END_AUDIO|BEGIN_AUDIO_STREAM"
_ROLES = "INST|SYS|SYSTEM|SYSTEM_PROMPT|USER|ASSISTANT|MODEL_SETTINGS|THINK|PREFIX|MIDDLE|SUFFIX"
_PLACES = r"CLS|SEP|MASK|PAD|UNK|BOS|EOS|gMASK|sMASK|sop|eop|control_\d+|unused\d+"
_GAP = r"[\s\u00ad\u200c-\u200f\u061c\u034f]*"
_MARKER = re.compile(
    rf"<(?![\s\d=+\-.,~≈±$€£]|$|<)"  # a tag or a token may begin: <|im_start|>, </s>, <!--, <bos>
    rf"|<(?={_GAP}[/|])"  # the same with a gap: < /passage>
    r"|<(?=\d\w*>)"  # <0x0A>, <2en>
    r"|<<+"  # <<SYS>>, >>QUESTION<<
    rf"|\[(?=/?(?:{_TOOLS}|{_MEDIA}|{_ROLES}|{_PLACES})\])"
    r"|\[(?=\|)"  # [|assistant|]
    r"|\[(?=e~\[)|\](?=~!?b[\[\]])"  # [e~[, ]~b]
    r"|###+",  # ### Instruction:
    re.IGNORECASE,
)
_HARMLESS = {"<": "‹", "[": "(", "]": ")", "#": "♯"}  # noqa: RUF001 - look-alikes are meant


class _Compatible(dict[int, int]):
    """Maps a character to the single plain one that it stands for, as full-width forms do, or else to itself."""

    def __missing__(self, code: int) -> int:
        folded = unicodedata.normalize("NFKC", chr(code))
        self[code] = ord(folded) if len(folded) == 1 else code
        return self[code]


_COMPATIBLE = _Compatible()


def as_data(text: str) -> str:
    """Return a text as it may stand between the tags of a prompt: no part of it can be a tag or a chat marker.

    Ordinary text, a lone «<» before a space or a number included, comes back as it is. What is changed:

    - control characters and characters that hide or turn text around are taken out, line separators become line
      feeds, other rare white space becomes spaces;
    - «<» becomes «‹» wherever a tag, comment or special token may begin, as in `</passage>`, `<|im_start|>`, `<s>`,
      `<bos>`, `<<SYS>>`, `<!--`;
    - «[» becomes «(» before the names of special tokens, as in `[INST]`, `[SYSTEM_PROMPT]`, `[MASK]`, `[|user|]`;
    - «#» becomes «♯» in runs of three or more, as in `### Instruction:`.

    Full-width and other compatible forms of these characters count as the characters themselves. A changed character
    is changed to a single other one, and applying the function again changes nothing.
    """  # noqa: RUF002 - look-alikes are meant
    clean = _UNSEEN.sub("", text.translate(_SPACES))
    plain = clean.translate(_COMPATIBLE)
    if not (found := list(_MARKER.finditer(plain))):
        return clean
    characters = list(clean)
    for marker in found:
        for at in range(*marker.span()):
            characters[at] = _HARMLESS[plain[at]]
    return "".join(characters)


def origins(text: str) -> list[int]:
    """Return, for each character of `as_data(text)`, the place in the text that it comes from."""
    return [place for place, character in enumerate(text) if not _UNSEEN.match(character)]
