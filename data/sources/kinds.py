"""What a file is, by its first bytes, for those that are no image or cannot be read; and the names that images have."""

import re

from PIL import Image

# Pillow registers these for data, films and captions, which nobody takes for pictures.
_NO_IMAGES = frozenset((".h5", ".hdf", ".grib", ".bufr", ".mpg", ".mpeg", ".iim"))
_CAMERA_RAW = """.3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .fff .iiq .kdc .mef .mos .mrw .nef .nrw .orf .pef .raf .raw
    .rw2 .rwl .sr2 .srf .srw .x3f"""
_FURTHER = """.ai .avci .avcs .bpg .btf .djv .djvu .exr .flif .hdp .hdr .heic .heics .heif .heifs .hif .jfi .jif .jng
    .jp2k .jph .jps .jxl .jxr .kra .mng .ora .pam .pct .pgx .pic .pict .pjp .pjpeg .pns .psb .rgbe .svg .svgz .targa
    .tf8 .wbmp .wdp .xcf"""
IMAGE_SUFFIXES = frozenset(Image.registered_extensions()) - _NO_IMAGES | {*_CAMERA_RAW.split(), *_FURTHER.split()}

CONVERT = "convert it to PNG or JPEG"
HEIC = f"a HEIC image; to read it, pip install 'codegan[heic]', or {CONVERT}"
CAMERA_RAW = f"a camera raw file; to read it, pip install 'codegan[raw]', or {CONVERT}"
_HEIC = rb"....ftyp(?:heic|heix|heim|heis|hevc|hevx|hevm|hevs|mif1|msf1|miaf|MiHE|MiHB)"
_CAMERA = rb"....ftypcrx |FUJIFILMCCD-RAW|FOVb|\0MRM|II(?:RO|RS|U\0)|MMOR|II.{4}HEAPCCDR"

_TEXT_START = rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*"
# Patterns that match at the start of a file, and what the file is. The first that matches counts.
_KINDS: tuple[tuple[bytes, str], ...] = (
    (rb"version https://git-lfs", "a Git LFS pointer, not the image itself; fetch it with: git lfs pull"),
    (_HEIC, HEIC),
    (_CAMERA, CAMERA_RAW),
    (rb"....ftypavi[fs]", f"a damaged AVIF image; {CONVERT}"),
    (rb"....(?:ftyp|moov|mdat)|\x1aE\xdf\xa3|RIFF....AVI |\0\0\x01[\xb3\xba]", "a film, not an image"),
    (rb"\xff\x0a|\0{3}\x0cJXL ", f"a JPEG XL image; {CONVERT}"),
    (rb"\xff\x4f\xff\x51|\0{3}\x0cjP  ", f"a JPEG 2000 image; {CONVERT}"),
    (rb"II\xbc", f"a JPEG XR image; {CONVERT}"),
    (rb"8BPS", f"a Photoshop document; {CONVERT}"),
    (rb"gimp xcf", f"a GIMP document; {CONVERT}"),
    (rb"%PDF", "a PDF document, not an image; export its pages as PNG or JPEG"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", f"a PostScript drawing, not an image of pixels; {CONVERT}"),
    (_TEXT_START + rb"(?:<!DOCTYPE svg[^>]*>\s*)?<svg[\s>]", f"an SVG drawing, not an image of pixels; {CONVERT}"),
    (_TEXT_START + rb"(?i:<!doctype html|<html|<head|<body)", "a web page, not an image; download the image again"),
    (_TEXT_START + rb"<\w|(?:\xef\xbb\xbf)?\s*<\?xml", "an XML document, not an image; download the image again"),
    (rb"(?:\xef\xbb\xbf)?\s*\{\s*[\"}]", "a JSON document, not an image; download the image again"),
    (rb"v/1\x01", f"an OpenEXR image; {CONVERT}"),
    (rb"#\?(?:RADIANCE|RGBE)", f"a Radiance HDR image; {CONVERT}"),
    (rb"PF\s", f"a PFM image in colour; {CONVERT}"),
    (rb"P7\s", f"a PAM image; {CONVERT}"),
    (rb"qoif", f"a QOI image; {CONVERT}"),
    (rb"DDS ", f"a DDS texture; {CONVERT}"),
    (rb"\0\0[\x01\x02]\0[^\0]\0|icns", f"an icon or cursor; {CONVERT}"),
    (rb"SIMPLE  =", f"a FITS image; {CONVERT}"),
    (rb"AT&TFORM", f"a DjVu document; {CONVERT}"),
    (rb"BPG\xfb", f"a BPG image; {CONVERT}"),
    (rb"\x01\xda[\0\x01][\x01\x02]", f"an SGI image; {CONVERT}"),
    (rb"\n[\0\x02-\x05]\x01[\x01\x02\x04\x08]", f"a PCX image; {CONVERT}"),
    (rb"\x8b[JM]NG|\x8aMNG", f"an MNG or JNG image; {CONVERT}"),
    (rb"\xd7\xcd\xc6\x9a|\x01\0{3}.{36} EMF", f"a Windows metafile; {CONVERT}"),
    (rb"PK\x03\x04|Rar!|7z\xbc\xaf|\x1f\x8b|BZh|\xfd7zXZ", "an archive, not an image; unpack it"),
)
# Formats that are read: a file that begins so and is refused all the same is damaged, or of a rare kind.
_READ = {
    "a TIFF": rb"II[*+]\0|MM\0[*+]",
    "a PNG": rb"\x89PNG",
    "a JPEG": rb"\xff\xd8",
    "a GIF": rb"GIF8",
    "a BMP": rb"BM",
    "a WebP": rb"RIFF....WEBP",
}
_HEAD = 2048  # bytes that are looked at


class Unreadable(Exception):
    """Why one file is skipped."""


def describe(content: bytes) -> str:
    """What a file is that no reader took, and what to do about it."""
    head = content[:_HEAD]
    for pattern, text in _KINDS:
        if re.match(pattern, head, re.DOTALL):
            return text
    if content[-18:-2] == b"TRUEVISION-XFILE":
        return f"a TGA image; {CONVERT}"
    for name, pattern in _READ.items():
        if re.match(pattern, head, re.DOTALL):
            return f"not an image in a known format, though it begins like {name}"
    if not content.strip(b"\0"):
        return "nothing but zeros; copy or download it again"
    return f"not an image in a known format; if it is one, {CONVERT}"


def is_heic(content: bytes) -> bool:
    return re.match(_HEIC, content, re.DOTALL) is not None


def is_camera_raw(content: bytes) -> bool:
    """Whether a file is a camera's own, other than one in the form of a TIFF (see `data.sources.tiff`)."""
    return re.match(_CAMERA, content, re.DOTALL) is not None
