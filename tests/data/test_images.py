import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFile
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    RLELossless,
    generate_uid,
)

from chestx_jax.data.dicom import grey_of
from chestx_jax.data.images import SIZE, ImageError, load_image, open_image


def ramp(bits: int = 8, side: int = 16) -> np.ndarray:
    """All values from 0 to 2**bits - 1, evenly, top left to bottom right."""
    values = np.linspace(0, 2**bits - 1, side * side).round()
    return values.reshape(side, side).astype(np.uint8 if bits <= 8 else np.uint16)


def dicom(pixels: np.ndarray, bits: int, **fields: object) -> Dataset:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = ComputedRadiographyImageStorage
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = generate_uid()
    ds.Rows, ds.Columns = pixels.shape[:2]
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
    ds.BitsAllocated = 8 * pixels.dtype.itemsize
    ds.BitsStored, ds.HighBit = bits, bits - 1
    ds.PixelData = pixels.tobytes()
    for name, value in fields.items():
        setattr(ds, name, value)
    return ds


def shown(path: Path, ds: Dataset) -> np.ndarray:
    """What is shown of a DICOM file, 0..255, before the resize."""
    ds.save_as(path / "x.dcm", enforce_file_format=True)
    return np.asarray(open_image(path / "x.dcm"))


def reason(path: Path) -> str:
    with pytest.raises(ImageError) as caught:
        load_image(path)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp"])
def test_pictures_become_rgb_of_the_asked_size(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(ramp(side=50)[:30]).save(tmp_path / f"x.{suffix}")
    pixels = load_image(tmp_path / f"x.{suffix}")
    assert pixels.shape == (SIZE, SIZE, 3) and pixels.dtype == np.uint8
    assert load_image(tmp_path / f"x.{suffix}", 28).shape == (28, 28, 3)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 60), st.integers(0, 10))
def test_resizing_grey_first_changes_nothing(h: int, w: int, size: int, seed: int) -> None:
    grey = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (h, w), dtype=np.uint8))
    data = io.BytesIO()
    grey.save(data, "png")
    expected = grey.convert("RGB").resize((size, size), Image.Resampling.BICUBIC)  # the paper's order
    path = Path("x.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("chestx_jax.data.images.open_image", lambda _: Image.open(io.BytesIO(data.getvalue())))
        np.testing.assert_array_equal(load_image(path, size), np.asarray(expected))


def test_colour_stays_colour(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    np.testing.assert_array_equal(load_image(tmp_path / "x.png", 8), pixels)


@pytest.mark.parametrize("mode", ["1", "LA", "P", "RGBA"])
def test_other_modes(tmp_path: Path, mode: str) -> None:
    Image.fromarray(np.full((4, 4), 255, np.uint8)).convert(mode).save(tmp_path / "x.png")
    assert (load_image(tmp_path / "x.png", 4) == 255).all()


@pytest.mark.parametrize("top", [4095, 65535])
def test_deep_png_is_stretched_not_clipped(tmp_path: Path, top: int) -> None:
    values = np.linspace(100, top, 256).round().astype(np.uint16).reshape(16, 16)
    Image.fromarray(values).save(tmp_path / "x.png")
    assert Image.open(tmp_path / "x.png").mode == "I;16"
    pixels = np.asarray(open_image(tmp_path / "x.png"))
    np.testing.assert_allclose(pixels.ravel(), np.arange(256), atol=1)
    assert (pixels.min(), pixels.max()) == (0, 255)


def test_a_flat_deep_png_is_black(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 5000, np.uint16)).save(tmp_path / "x.png")
    assert not load_image(tmp_path / "x.png", 4).any()


def test_files_that_are_no_picture(tmp_path: Path) -> None:
    assert "No such file" in reason(tmp_path / "absent.png")
    (tmp_path / "empty.png").touch()
    assert "is empty" in reason(tmp_path / "empty.png")
    (tmp_path / "text.png").write_text("not a picture " * 20)
    assert "neither PNG, JPEG nor DICOM" in reason(tmp_path / "text.png")
    assert "cannot be read" in reason(tmp_path)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_truncated_picture_is_an_error(tmp_path: Path, suffix: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    data = io.BytesIO()
    Image.fromarray(noise).save(data, {"jpg": "jpeg"}.get(suffix, suffix))
    whole = data.getvalue()
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(whole[: int(len(whole) * share)])
    assert "truncated" in reason(path)
    path.write_bytes(whole)
    load_image(path)


def test_truncation_cannot_be_switched_to_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(ramp()).save(tmp_path / "x.png")
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert "LOAD_TRUNCATED_IMAGES" in reason(tmp_path / "x.png")


def test_a_picture_under_another_name(tmp_path: Path) -> None:
    Image.fromarray(ramp()).save(tmp_path / "x.dcm", "png")
    np.testing.assert_array_equal(np.asarray(open_image(tmp_path / "x.dcm")), ramp())
    dicom(ramp(), 8).save_as(tmp_path / "y.png", enforce_file_format=True)
    np.testing.assert_array_equal(np.asarray(open_image(tmp_path / "y.png")), ramp())


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 15, 16])
def test_dicom_without_a_window_uses_the_full_range(tmp_path: Path, bits: int) -> None:
    np.testing.assert_array_equal(shown(tmp_path, dicom(ramp(bits), bits)), ramp(8))


def test_dicom_of_eight_bits_is_left_alone(tmp_path: Path) -> None:
    dim = ramp() // 4 + 30
    np.testing.assert_array_equal(shown(tmp_path, dicom(dim, 8)), dim)


def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    pixels = shown(tmp_path, dicom(ramp(12), 12, PhotometricInterpretation="MONOCHROME1"))
    np.testing.assert_array_equal(pixels, 255 - ramp(8))


def test_signed_pixels_and_rescale(tmp_path: Path) -> None:
    values = (ramp(12).astype(np.int32) - 2048).astype(np.int16)
    ds = dicom(values, 16, PixelRepresentation=1, RescaleSlope="2", RescaleIntercept="-100")
    np.testing.assert_array_equal(shown(tmp_path, ds), ramp(8))
    ds.WindowCenter, ds.WindowWidth = "-100", "4096"  # in rescaled units
    pixels = shown(tmp_path, ds)
    np.testing.assert_array_equal(pixels, windowed(values * 2.0 - 100, -100, 4096))


def windowed(x: np.ndarray, c: float, w: float) -> np.ndarray:
    """LINEAR as PS3.3 C.11.2.1.2.1 writes it, branch by branch."""
    y = np.where(x <= c - 0.5 - (w - 1) / 2, 0.0, np.where(x > c - 0.5 + (w - 1) / 2, 1.0, np.nan))
    y = np.where(np.isnan(y), (x - (c - 0.5)) / (w - 1) + 0.5, y)
    return np.round(y * 255).astype(np.uint8)


@given(st.integers(-500, 4500), st.integers(1, 6000))
def test_linear_window(center: int, width: int) -> None:
    ds = dicom(ramp(12), 12, WindowCenter=str(center), WindowWidth=str(width))
    x = ramp(12).astype(float)
    expected = windowed(x, center, width) if width > 1 else np.where(x > center - 0.5, 255, 0)
    np.testing.assert_array_equal(grey_of(ds, ramp(12)), expected)


def test_the_first_of_several_windows(tmp_path: Path) -> None:
    one = shown(tmp_path, dicom(ramp(12), 12, WindowCenter="1000", WindowWidth="500"))
    two = shown(tmp_path, dicom(ramp(12), 12, WindowCenter=["1000", "3000"], WindowWidth=["500", "50"]))
    np.testing.assert_array_equal(one, two)
    assert len(np.unique(one)) > 20


def test_other_window_functions(tmp_path: Path) -> None:
    x = ramp(12).astype(float)
    fields = {"WindowCenter": "2000", "WindowWidth": "800"}
    sigmoid = shown(tmp_path, dicom(ramp(12), 12, VOILUTFunction="SIGMOID", **fields))
    np.testing.assert_array_equal(sigmoid, np.round(255 / (1 + np.exp(-4 * (x - 2000) / 800))))
    exact = shown(tmp_path, dicom(ramp(12), 12, VOILUTFunction="LINEAR_EXACT", **fields))
    np.testing.assert_array_equal(exact, np.round(255 * np.clip((x - 2000) / 800 + 0.5, 0, 1)))


def lut(data: np.ndarray, first: int, bits: int) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(data), first, bits])
    item.add_new("LUTData", "US", data.astype(int).tolist())
    return item


def test_voi_lut_goes_before_a_window(tmp_path: Path) -> None:
    table = np.round(1023 * np.sqrt(np.linspace(0, 1, 4096)))
    ds = dicom(ramp(12), 12, VOILUTSequence=[lut(table, 0, 10)], WindowCenter="0", WindowWidth="1")
    np.testing.assert_array_equal(shown(tmp_path, ds), np.round(table[ramp(12)] / 1023 * 255))


@pytest.mark.parametrize("packed", [False, True])
def test_modality_lut(tmp_path: Path, packed: bool) -> None:
    item = lut(np.arange(4096)[::-1], 0, 12)
    if packed:
        item.add_new("LUTData", "OW", np.arange(4096, dtype="<u2")[::-1].tobytes())
    item.ModalityLUTType = "US"
    np.testing.assert_array_equal(
        shown(tmp_path, dicom(ramp(12), 12, ModalityLUTSequence=[item])), 255 - ramp(8)
    )


def test_a_lut_that_does_not_cover_all_values(tmp_path: Path) -> None:
    table = np.array([10, 20, 30, 255])
    values = np.array([[0, 99, 100, 101], [102, 103, 104, 4095]], np.uint16)
    pixels = shown(tmp_path, dicom(values, 12, VOILUTSequence=[lut(table, 100, 8)]))
    np.testing.assert_array_equal(pixels, [[10, 10, 10, 20], [30, 255, 255, 255]])


def test_padding_does_not_set_the_range(tmp_path: Path) -> None:
    values = (ramp(12) // 2 + 1000).astype(np.uint16)
    values[0] = 0
    pixels = shown(tmp_path, dicom(values, 12, PixelPaddingValue=0))
    assert not pixels[0].any() and pixels[1].min() < 30 and pixels[-1, -1] == 255


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLosslessSV1, JPEGBaseline8Bit])
def test_compressed_dicom(tmp_path: Path, syntax: pydicom.uid.UID) -> None:
    bits = 8 if syntax == JPEGBaseline8Bit else 16
    ds = dicom(ramp(bits, 64), bits)
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID
    if syntax == RLELossless:
        ds.compress(syntax)
    else:
        ds = by_gdcm(tmp_path, ds, syntax)
    assert ds.file_meta.TransferSyntaxUID == syntax
    np.testing.assert_allclose(shown(tmp_path, ds).astype(int), ramp(8, 64), atol=3 if bits == 8 else 0)


def by_gdcm(folder: Path, ds: Dataset, syntax: pydicom.uid.UID) -> Dataset:
    gdcm = pytest.importorskip("gdcm")
    ds.save_as(folder / "raw.dcm", enforce_file_format=True)
    reader = gdcm.ImageReader()
    reader.SetFileName(str(folder / "raw.dcm"))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(syntax))))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(folder / "packed.dcm"))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return pydicom.dcmread(folder / "packed.dcm")


def test_dicom_that_is_no_radiograph(tmp_path: Path) -> None:
    path = tmp_path / "x.dcm"

    def why(ds: Dataset) -> str:
        ds.save_as(path, enforce_file_format=True)
        return reason(path)

    two = np.stack([ramp(), ramp()])
    film = dicom(two[0], 8, NumberOfFrames="2", PixelData=two.tobytes())
    assert "2 frames" in why(film)
    colour = np.zeros((4, 4, 3), np.uint8)
    fields = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    assert "'RGB', expected MONOCHROME1" in why(dicom(colour, 8, **fields))
    report = dicom(ramp(), 8)
    del report.PixelData
    assert "without pixel data" in why(report)
    short = dicom(ramp(), 8)
    short.PixelData = short.PixelData[:100]
    assert "cannot be decoded" in why(short)
    assert "cannot be applied" in why(dicom(ramp(12), 12, WindowCenter="5", WindowWidth="0"))
    path.write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 40)
    assert "DICOM" in reason(path)


def test_real_radiographs_are_black_where_there_is_air(shared_data: Path) -> None:
    for name in ("RG1_UNCI", "rsna_pa_jpeg8_mono2"):
        pixels = load_image(shared_data / "dicom" / f"{name}.dcm")[..., 0].astype(float)
        lungs = np.mean([pixels[140:220, 100:150].mean(), pixels[140:220, 300:350].mean()])
        belly = pixels[380:430, 60:160].mean()
        assert lungs < belly - 30, (name, lungs, belly)
        assert len(np.unique(pixels)) > 150
