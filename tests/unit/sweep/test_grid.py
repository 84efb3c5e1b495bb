"""The points of a grid: order, dense ones, names."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.errors import UsageError
from exporter.schedule import ScheduleRequest
from exporter.sweep import Axes, Point, grid, with_dense

POINTS = st.builds(
    Point,
    method=st.sampled_from(["tome", "pitome", "To Me", "a/b"]),
    method_options=st.sampled_from([(), (("margin", 0.9),), (("margin", 0.75),)]),
    schedule=st.one_of(
        st.builds(
            ScheduleRequest,
            kind=st.sampled_from(["constant", "decreasing"]),
            r=st.integers(-1, 3),
            align=st.sampled_from([None, 1, 8]),
        ),
        st.builds(ScheduleRequest, r_per_layer=st.tuples(st.integers(0, 2), st.integers(0, 2))),
        st.builds(ScheduleRequest, keep_per_layer=st.sampled_from([(9, 8), (0.5, 0.5), (0.9, 0.9)])),
    ),
    precision=st.sampled_from(["fp32", "fp16"]),
    target=st.sampled_from(["onnx", "torch-trt"]),
)


def test_grid_has_every_combination_in_the_order_of_the_axes() -> None:
    axes = Axes(
        r=(0, 4, 8), methods={"tome": {}, "pitome": {"margin": 0.8}}, kinds=("constant", "decreasing")
    )

    names = [point.name for point in grid(axes)]

    assert names[0] == "dense-fp32-onnx"
    assert names[1:5] == [
        "tome-constant-r4-fp32-onnx",
        "tome-constant-r8-fp32-onnx",
        "tome-decreasing-r4-fp32-onnx",
        "tome-decreasing-r8-fp32-onnx",
    ]
    assert [re.sub("-[0-9a-f]{8}$", "", name) for name in names[5:]] == [
        "pitome-constant-r4-fp32-onnx",
        "pitome-constant-r8-fp32-onnx",
        "pitome-decreasing-r4-fp32-onnx",
        "pitome-decreasing-r8-fp32-onnx",
    ]


def test_r_0_is_one_point_for_each_precision_and_target() -> None:
    axes = Axes(
        r=(0,),
        methods={"pitome": {}, "tome": {}},
        kinds=("decreasing", "constant"),
        aligns=(1, 8),
        precisions=("fp32", "fp16"),
        targets=("onnx", "aoti"),
    )

    assert [point.name for point in grid(axes)] == [
        "dense-fp32-onnx",
        "dense-fp16-onnx",
        "dense-fp32-aoti",
        "dense-fp16-aoti",
    ]


def test_dense_point_is_the_same_whatever_methods_are_asked() -> None:
    assert grid(Axes(r=(0,), methods={"pitome": {}})) == grid(Axes(r=(0,), methods={"tome": {}}))


def test_repeated_values_and_multiples_of_1_make_no_points_of_their_own() -> None:
    assert grid(Axes(r=(4, 4), aligns=(1, 1))) == (Point(schedule=ScheduleRequest(r=4)),)


def test_aligned_and_free_schedules_are_two_points() -> None:
    assert [point.name for point in grid(Axes(r=(8,), aligns=(1, 8)))] == [
        "tome-constant-r8-fp32-onnx",
        "tome-constant-r8-align8-fp32-onnx",
    ]


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        pytest.param(Axes(r=()), "--r lists nothing", id="no r"),
        pytest.param(Axes(r=(4,), methods={}), "--method lists nothing", id="no method"),
        pytest.param(Axes(r=(4,), targets=()), "--target lists nothing", id="no target"),
        pytest.param(Axes(r=(4, -1)), "r >= 0, got -1", id="negative r"),
        pytest.param(Axes(keep_rates=(0.5, 1.5)), "--keep-rate above 0 and at most 1, got 1.5", id="rate"),
        pytest.param(Axes(r=(4,), aligns=(0,)), "align >= 1, got 0", id="multiple of 0"),
    ],
)
def test_grid_without_sense_is_refused(axes: Axes, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        grid(axes)


@given(one=POINTS, other=POINTS)
def test_name_is_unique_and_safe_as_a_folder(one: Point, other: Point) -> None:
    assert (one.name == other.name) == (one == other)
    assert re.fullmatch("[a-z0-9][a-z0-9_-]{0,80}", one.name)


@pytest.mark.parametrize(
    ("schedule", "dense"),
    [
        pytest.param(ScheduleRequest(r=0, kind="decreasing"), True, id="r=0"),
        pytest.param(ScheduleRequest(r=1), False, id="r=1"),
        pytest.param(ScheduleRequest(r_per_layer=(0, 0)), True, id="list of zeros"),
        pytest.param(ScheduleRequest(r_per_layer=(0, 1)), False, id="list"),
        pytest.param(
            ScheduleRequest(keep_per_layer=(1.0, 1.0)), False, id="keep: unknown before the model is"
        ),
    ],
)
def test_dense_is_what_surely_merges_nothing(schedule: ScheduleRequest, dense: bool) -> None:
    assert Point(schedule=schedule).is_dense is dense


def test_missing_dense_points_are_put_in_front() -> None:
    reduced = grid(Axes(r=(4,), precisions=("fp32", "fp16")))
    dense = replace(reduced[0].dense, precision="fp16")

    assert with_dense((*reduced, dense)) == (reduced[0].dense, *reduced, dense)


def test_keep_rates_are_points_beside_those_of_r() -> None:
    points = grid(Axes(r=(4,), keep_rates=(0.7, 1.0)))

    assert points == (
        Point(schedule=ScheduleRequest(r=4)),
        Point(schedule=ScheduleRequest(keep_rate=0.7)),
        Point(),
    )
    assert len({point.name for point in points}) == 3
