"""Every way of giving images, and every way of giving them wrongly."""

import io
import os
import sys
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import draw, fill_folder, pack
from PIL import Image

from riceutils import data, sources
from riceutils.sources import DataError, open_source


def test_a_folder_and_its_zip_hold_the_same_classes_and_bytes(folder, tmp_path):
    unpacked, packed = open_source(folder), open_source(pack(folder, tmp_path / "grains.zip"))
    assert unpacked.classes == packed.classes == ["long", "round"]
    names = zip(unpacked.members["round"], packed.members["round"], strict=True)
    assert all(unpacked.read(one) == packed.read(other) for one, other in names)


def test_folder_may_lie_one_level_deeper_and_hold_other_files(folder):
    (folder / "citation.txt").write_text("cite us")
    (folder / "round" / ".hidden.jpg").write_bytes(b"")
    (folder.parent / "outer").mkdir()
    folder.rename(folder.parent / "outer" / "Grains")
    opened = open_source(folder.parent / "outer")
    assert {label: len(names) for label, names in opened.members.items()} == {"long": 12, "round": 12}


def test_signature_changes_with_a_file(folder):
    before = open_source(folder).signature
    assert open_source(folder).signature == before
    draw("round", 99).save(folder / "round" / "round (1).jpg")
    assert open_source(folder).signature != before


def test_synthetic_is_made_by_seed_in_the_number_asked_for():
    one, same, other = (open_source("synthetic", 3, seed) for seed in (0, 0, 1))
    assert [len(names) for names in one.members.values()] == [3] * 5
    name = one.members["Ipsala"][2]
    assert one.read(name) == same.read(name) != other.read(name)
    assert one.signature == same.signature != other.signature
    assert sources.decode(one.read(name), name).size == (250, 250)


def test_missing_folder(tmp_path):
    with pytest.raises(DataError, match=r"No such folder or zip: .*nowhere\. Use 'synthetic'"):
        open_source(tmp_path / "nowhere")


def test_empty_folder(tmp_path):
    with pytest.raises(DataError, match=r"No images in .*Expected one folder per class"):
        open_source(tmp_path)


def test_empty_class_folder(folder):
    (folder / "broken").mkdir()
    with pytest.raises(DataError, match=r"Class folder .*broken holds no image"):
        open_source(folder)


def test_what_an_archiver_leaves_beside_the_classes_is_no_class(folder):
    (folder / "__MACOSX").mkdir()
    assert open_source(folder).classes == ["long", "round"]


def test_a_class_may_be_a_link_to_a_folder_elsewhere(folder):
    (folder / "round").rename(folder.parent / "elsewhere")
    (folder / "round").symlink_to(folder.parent / "elsewhere")
    opened = open_source(folder)
    assert len(opened.members["round"]) == 12
    assert opened.read(opened.members["round"][0])


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep no such names")
@pytest.mark.parametrize("name", [b"round/\xff.jpg", b"r\xfcnd/a.jpg"])
def test_a_name_that_is_not_utf_8_is_said(folder, name):
    path = os.fsencode(folder) + b"/" + name
    os.makedirs(os.path.dirname(path), exist_ok=True)
    (folder / "long" / "long (1).jpg").rename(os.fsdecode(path))
    (folder / os.fsdecode(b"\xff.txt")).touch()  # no image: never read
    with pytest.raises(DataError, match=r"The name of .*\?.*\.jpg is not UTF-8\. Rename it") as error:
        open_source(folder)
    str(error.value).encode()


def test_a_link_to_a_folder_that_holds_it_is_named(folder):
    (folder / "round" / "all").symlink_to(folder)
    with pytest.raises(DataError, match=r"round/all links back to .*grains, which holds it\. Remove the link"):
        open_source(folder)


def test_images_without_class_folders(tmp_path):
    draw("round", 0).save(tmp_path / "a.jpg")
    with pytest.raises(DataError, match="is not a folder of classes"):
        open_source(tmp_path)


def test_an_image_beside_the_class_folders_is_named_and_no_class(folder, tmp_path):
    draw("round", 0).save(folder / "stray.jpg")
    for source in (folder, pack(folder, tmp_path / "grains.zip")):
        with pytest.raises(DataError, match=r"stray\.jpg lies beside the class folders of .* Move or remove it"):
            open_source(source)


def test_images_beside_a_single_class_folder(tmp_path):
    draw("round", 0).save(fill_folder(tmp_path / "grains", 3, ("long",)) / "stray.jpg")
    with pytest.raises(DataError, match=r"stray\.jpg lies beside the class folders"):
        open_source(tmp_path / "grains")


def test_one_class_only(tmp_path):
    with pytest.raises(DataError, match=r"is not a folder of classes.*at least two"):
        open_source(fill_folder(tmp_path / "grains", 3, ("long",)))


def test_truncated_zip(folder, tmp_path):
    path = pack(folder, tmp_path / "grains.zip")
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(DataError, match=r"grains\.zip is not a whole zip file .* Fetch it again"):
        open_source(path)


def test_zip_with_a_damaged_member_names_it(folder, tmp_path):
    path = pack(folder, tmp_path / "grains.zip")
    content = bytearray(path.read_bytes())
    content[100:200] = bytes(100)  # inside the first, stored, member
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"member 'grains/long/long \(1\)\.jpg' cannot be read"):
        data.load(path, 32, 6)


def test_an_archive_fetched_anew_is_read_anew(folder, tmp_path):
    path = pack(folder, tmp_path / "grains.zip")
    good = path.read_bytes()
    path.write_bytes(good[:100] + bytes(100) + good[200:])
    with pytest.raises(DataError, match="Fetch the zip again"):
        data.load(path, 32, 6)
    path.write_bytes(good)
    assert len(data.load(path, 32, 6).train)


def test_a_malformed_header_is_damage():
    """A tag of numbers (0x156) that holds text, beside an orientation that makes Pillow write the header anew."""
    entries = "0156 0002 00000004 61626300 0112 0003 00000001 00060000"
    header = b"Exif\0\0" + bytes.fromhex(f"4d4d 002a 00000008 0002 {entries} 00000000")
    with pytest.raises(DataError, match="Cannot read image odd"):
        sources.decode(encoded(draw("round", 0), "JPEG", exif=header), "odd")


@pytest.mark.parametrize("name", ["../evil/a.jpg", "/etc/a.jpg", "grains/../../a.jpg", "..\\a.jpg", "C:/a.jpg"])
def test_zip_whose_member_points_outside(folder, tmp_path, name):
    path = pack(folder, tmp_path / "grains.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, b"x")
    with pytest.raises(DataError, match="has a member that points outside"):
        open_source(path)


def test_no_zip_at_all(tmp_path):
    (tmp_path / "grains.zip").write_text("not a zip")
    with pytest.raises(DataError, match="is not a whole zip file"):
        open_source(tmp_path / "grains.zip")


def encoded(image: Image.Image, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def test_grey_becomes_three_equal_channels():
    pixels = np.asarray(sources.decode(encoded(draw("round", 0).convert("L"), "JPEG"), "a.jpg"))
    assert pixels.shape == (64, 64, 3)
    assert (pixels == pixels[..., :1]).all()
    assert pixels.max() > 150


def test_transparency_is_laid_on_black():
    image = draw("round", 0).convert("RGBA")
    image.putalpha(Image.new("L", image.size, 0))
    assert np.asarray(sources.decode(encoded(image, "PNG"), "a.png")).max() == 0


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP", "WEBP", "TIFF"])
def test_damage_of_any_kind_is_a_data_error_or_an_image(form):
    whole, rng = encoded(draw("round", 0), form), np.random.default_rng(0)
    for attempt in range(60):
        spoilt = bytearray(whole)
        if attempt % 2:
            spoilt = spoilt[: rng.integers(len(spoilt))]
        else:
            spoilt[rng.integers(min(len(spoilt), 300))] = rng.integers(256)
        try:
            assert sources.decode(bytes(spoilt), "a", 16).size == (16, 16)
        except DataError as error:
            assert "Cannot read image a" in str(error)  # noqa: PT017


def test_kaggle_out_of_reach(monkeypatch):
    def refuse(handle):
        raise OSError("Name or service not known")

    monkeypatch.setitem(sys.modules, "kagglehub", SimpleNamespace(dataset_download=refuse))
    with pytest.raises(ConnectionError, match=r"could not be fetched \(OSError\).*download the zip elsewhere"):
        data.load("kaggle", 32, 6)


def test_kaggle_against_a_stand_in(monkeypatch, folder):
    asked = []

    def deliver(handle):
        asked.append(handle)
        return str(folder)

    monkeypatch.setitem(sys.modules, "kagglehub", SimpleNamespace(dataset_download=deliver))
    splits = data.load("kaggle", 32, 6)
    assert asked == ["muratkokludataset/rice-image-dataset"]
    assert (splits.classes, splits.kind) == (["long", "round"], "real")


def test_the_real_zip(real_zip):
    opened = open_source(real_zip)
    assert {label: len(names) for label, names in opened.members.items()} == dict.fromkeys(
        ["Arborio", "Basmati", "Ipsala", "Jasmine", "Karacadag"], 6000
    )
    name = opened.members["Basmati"][0]
    assert sources.decode(opened.read(name), name).size == (250, 250)


@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_sixteen_bits_become_eight(order):
    values = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    content = io.BytesIO()
    Image.fromarray(values.astype(order)).save(content, "TIFF")
    assert (np.asarray(sources.decode(content.getvalue(), "grey.tif"))[..., 0] == values // 256).all()


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_thirty_two_bits_are_of_unknown_range(kind):
    content = encoded(Image.fromarray(np.ones((8, 8), kind)), "TIFF")
    with pytest.raises(DataError, match=r"Image grey\.tif holds 32-bit values"):
        sources.decode(content, "grey.tif")
