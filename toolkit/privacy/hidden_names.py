"""Names that lines and errors must not have, each with what stands in its place."""

import logging
import re
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from attunet.errors import InputError, RunError
from attunet.system.plain_text import printable

SHORTEST = 3  # characters of a name that is looked for in text where no slash or quote marks it as a name
HIDDEN = "(a name)"
COUNT = re.compile(r"\s*\[?(\d+/\d+)(?=[\s\]])")  # "1/12" at the beginning of a line, which is no path


class HiddenNames:
    """Words that are replaced in text, in the log and in errors."""

    def __init__(self) -> None:
        self._words: dict[str, str] = {}
        self._lengths: set[int] = set()  # of the words
        self._common: set[str] = set()  # of several cases, as `imaging`: replaced only where it is marked as a name
        self._given: set[str] = set()  # numbers; lines have them, so that a name that is one of them gets none

    def remember(self, words: Mapping[str, str], *, are_whole: bool = False) -> None:
        """Words that `hide` replaces: names, files and paths, each with what is to stand in its place. are_whole: True
        for paths from the root of the file system, or as a user gives them, which are those of nothing else.
        """
        for name, number in words.items():
            for word in _spellings(name):
                if name in self._common or self._words.get(word, HIDDEN) not in (HIDDEN, number):
                    self._common.add(word)
                is_another = not are_whole and self._is_another_number(word, number)
                self._words[word] = HIDDEN if word in self._common or is_another else number
                self._lengths.add(len(word))

    def remember_file(self, path: Path, root: Path, number: str = HIDDEN) -> None:
        """A file or folder below the source `root`: its path and every part of it. number: its case's, if any."""
        relative = path.relative_to(root) if path.is_relative_to(root) else Path(path.name)
        stems = {path.name[: end.start()] for end in re.finditer(r"\.", path.name)} - {""}
        self._common.update(relative.parts[:-1])
        self.remember(dict.fromkeys(relative.parts[:-1], HIDDEN))
        self.remember(dict.fromkeys([relative.as_posix(), path.name, *stems], number))
        self.remember(dict.fromkeys([str(path), str(path.resolve())], number), are_whole=True)

    def hide(self, text: str) -> str:
        """The text with numbers instead of the names, files and paths that are known."""
        lengths, count = sorted(self._lengths, reverse=True), COUNT.match(text)
        at = count.end() if count and count[1] not in self._words else 0
        out = [text[:at]]
        while at < len(text):
            if at == 0 or not _is_inside(text, at):
                word = next((text[at : at + n] for n in lengths if self._is_name(text, at, at + n)), None)
                if word is not None:
                    out.append(self._words[word])
                    at += len(word)
                    continue
            out.append(text[at])
            at += 1
        return "".join(out)

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Context in which the log and the errors that leave it have numbers instead of names."""
        make = logging.getLogRecordFactory()

        def make_hidden(*values: object, **named: object) -> logging.LogRecord:
            record = make(*values, **named)
            if record.name.partition(".")[0] == "attunet":
                record.msg, record.args = self.hide(record.getMessage()), ()
            return record

        logging.setLogRecordFactory(make_hidden)
        try:
            yield
        except (InputError, RunError) as error:
            error.args = (self.hide(str(error)),)
            raise error from None
        except OSError as error:
            if error.filename is None:
                raise
            raise RunError(self.hide(f"{error.filename}: {error.strerror or error}")) from None
        finally:
            logging.setLogRecordFactory(make)

    def _is_another_number(self, word: str, number: str) -> bool:
        """True if the word has a number that was given to another name, as the name of a label map has."""
        stems = {part.partition(".")[0] for part in word.split("/")}
        return not self._given.isdisjoint(stems - {number})

    def _is_name(self, text: str, start: int, end: int) -> bool:
        word = text[start:end]
        if len(word) < end - start or word not in self._words or (end < len(text) and _is_inside(text, end)):
            return False
        before, behind = text[start - 1 : start], text[end : end + 1]
        is_marked = "/" in word or "." in word or before in ("/", "'", '"') or behind == "/"
        is_figure = word.isdecimal() and (len(word) < 5 or "." in (before, behind))
        return is_marked or (len(word) >= SHORTEST and word not in self._common and not is_figure)


def _spellings(word: str) -> set[str]:
    """A name as lines may have it: with blanks in place of other white space, without control characters, escaped,
    with letters and accents composed and decomposed.
    """
    if word.isascii() and word.isprintable() and not re.search(r"^ |  | $|['\\]", word):
        return {word} - {""}  # as most are, of the hundred thousand that a source may have
    forms = {unicodedata.normalize(form, word) for form in ("NFC", "NFD")} | {word}
    forms |= {" ".join(form.split()) for form in forms} | {printable(form) for form in forms}
    forms |= {" ".join(form.split()) for form in forms} | {repr(form)[1:-1] for form in forms}
    return forms - {""}


def _is_inside(text: str, at: int) -> bool:
    """True if the characters on both sides of a place belong to one word."""
    return all(character.isalnum() or character == "_" for character in text[at - 1 : at + 1])
