"""Names: what they say of a file, and their portable form."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gender_classifier.data.file_names import (
    IMAGE_SUFFIXES,
    OTHER_FORMATS,
    describe_value,
    escape_name,
    find_collision,
    has_image_suffix,
    is_clutter,
    list_first,
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Training/female/1 é日$%\r\n.jpg", "Training/female/1 é日$%\r\n.jpg"),
        ("a\\b.jpg", "a%5Cb.jpg"),
        (os.fsdecode(b"a\xff\xfeb.jpg"), "a%FF%FEb.jpg"),
        ("a\0b", "a%00b"),
        ("\ud800", "%ED%A0%80"),
    ],
)
def test_what_is_not_portable_is_escaped(name: str, expected: str) -> None:
    assert escape_name(name) == expected


@given(st.text(st.characters(codec=None) | st.characters(min_codepoint=0xD800, max_codepoint=0xDFFF)))
def test_an_escaped_name_is_text_and_stays(name: str) -> None:
    escaped = escape_name(name)
    escaped.encode()
    assert escape_name(escaped) == escaped


def test_collisions_are_found() -> None:
    assert find_collision(["a", "b\\", "a"]) is None
    assert find_collision(["a", "b%5C", "b\\"]) == ("b%5C", "b\\")


@pytest.mark.parametrize(
    "name", ["x/.a.jpg", ".git/x", "__MACOSX/a.jpg", "a/Thumbs.db", "a/Icon\r", "Desktop.ini", "@eaDir/a.jpg"]
)
def test_clutter(name: str) -> None:
    assert is_clutter(name)


def test_ordinary_names_are_no_clutter() -> None:
    assert not any(map(is_clutter, ["a.jpg", "x/icon.jpg", "a..jpg", "../a.jpg"]))


def test_images_are_known_by_suffix() -> None:
    assert all(map(has_image_suffix, ["a.JPG", "b.Heic", "c.jpg.jpg", "x/d.avif", "e.NEF"]))
    assert not any(map(has_image_suffix, ["a.txt", "jpg", ".jpg", "x.jpg/a"]))
    assert not IMAGE_SUFFIXES & set(OTHER_FORMATS)


def test_lists_are_cut_and_stay_on_one_line() -> None:
    assert list_first(["a\nb", "\udcff"]) == r"a\nb, \udcff"
    assert list_first(map(str, range(1007)), 2) == "0, 1 and 1,005 more"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("/home/me/faces", "faces"), ("/home/me/faces/", "faces"), ("~/faces.zip", "faces.zip"), ("~me/a/b", "b"),
        ("/home/me/faces.zip/copy/x", "faces.zip/copy/x"), ("/home/me/faces.zip/.", "faces.zip"),
        ("C:\\Users\\me\\faces", "faces"), ("\\\\server\\share\\me\\faces", "faces"), ("file:///home/me/a%20b", "a b"),
        ("faces/new", "faces/new"), ("../faces", "../faces"), ("sample", "sample"), ("1e-05", "1e-05"), (0.5, "0.5"),
        (None, "None"), (True, "True"), ("https://you:secret@host/x", "https://***@host/x"), ("", ""),
    ],
)  # fmt: skip
def test_of_a_full_path_the_last_part_leaves_the_machine(value: object, shown: str) -> None:
    assert describe_value(value) == shown
