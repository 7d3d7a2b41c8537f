"""Metadata of files: plain values, tags found by their paths, attributes by name."""

from __future__ import annotations

import datetime
import json
from fractions import Fraction

import numpy as np
import pytest

from tensorspec.io.metadata import apply_mapping, attributes, plain

COUNTS = np.dtype("u2")


def test_everything_becomes_json():
    value = {
        1: np.float32(0.5),
        "array": np.arange(3),
        "nested": {"text": np.str_("a"), "bytes": b"b", "flag": np.True_, "none": None},
        "fraction": Fraction(1, 4),
        "when": datetime.date(2024, 2, 3),
        "several": ({"deep": np.int8(2)}, {7}),
    }
    assert json.loads(json.dumps(plain(value))) == {
        "1": 0.5,
        "array": [0, 1, 2],
        "nested": {"text": "a", "bytes": "b", "flag": True, "none": None},
        "fraction": 0.25,
        "when": "2024-02-03",
        "several": [{"deep": 2}, [7]],
    }


def test_tags_are_found_as_readers_write_their_paths():
    original = {
        "Image Tags": {"Microscope Info": {"Voltage (V)": 200e3, "Name": "Titan"}, "EELS": {"Exposure (s)": 0.5}}
    }
    mapping = {
        "Image_Tags.Microscope_Info.Voltage_V": ("TEM.beam_energy", lambda volts: volts / 1e3),
        "Image Tags.Microscope Info": ("TEM.microscope", lambda tags: tags.get_item("Name")),
        "Image Tags.EELS": ("TEM.exposure", lambda tags: tags["Exposure_s"] * ("Exposure_s" in tags.keys())),
        "Image Tags.Absent.Tag": ("General.absent", None),
        "Image Tags.Absent": ("General.never", str),
        "Image Tags.EELS.Exposure (s).below": ("General.below", None),
        "Image Tags": ("General.broken", lambda tags: tags["no such"]),
        "Image Tags.EELS.Exposure (s)": ("General.nothing", lambda value: None),
    }
    before = {"General": {"title": "t"}}
    found = apply_mapping(before, original, mapping)
    assert found == {
        "General": {"title": "t"},
        "TEM": {"beam_energy": 200.0, "microscope": "Titan", "exposure": 0.5},
    }
    assert before == {"General": {"title": "t"}}


def test_attributes_by_name():
    metadata = {
        "General": {"title": "map", "original_filename": "a.bcf"},
        "Signal": {"signal_type": "EDS_TEM"},
        "Acquisition_instrument": {"TEM": {"beam_energy": 200}},
        "Sample": {"elements": ["O", "Ti"]},
    }
    attrs = attributes(metadata, COUNTS)
    assert attrs.pop("metadata") == metadata
    assert attrs == {
        "title": "map",
        "units": "counts",
        "signal_type": "EDS_TEM",
        "beam_energy_keV": 200.0,
        "elements": ["O", "Ti"],
        "original_filename": "a.bcf",
    }
    assert attributes({}, COUNTS) == {"metadata": {}}
    assert attributes({"Acquisition_instrument": {"SEM": {"beam_energy": 5.0}}}, COUNTS)["beam_energy_keV"] == 5.0


@pytest.mark.parametrize(
    ("signal_type", "quantity", "dtype", "expected"),
    [
        ("EDS_TEM", "X-rays (Counts)", "f4", "counts"),
        ("EDS_TEM", "X-rays", "u4", "counts"),
        ("EDS_TEM", "X-rays", "f4", None),
        ("EELS", "Electrons (Counts)", "f4", "counts"),
        ("EELS", "Intensity", "f4", None),
        ("", "Counts", "u2", "counts"),
        ("", "Intensity (kHz)", "f8", "kHz"),
        ("", "", "u2", None),
    ],
)
def test_counts_only_where_known(signal_type: str, quantity: str, dtype: str, expected: str | None):
    signal = {"signal_type": signal_type, "quantity": quantity}
    assert attributes({"Signal": signal}, np.dtype(dtype)).get("units") == expected
