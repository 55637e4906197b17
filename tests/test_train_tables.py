"""Tables of mixed types: what comes back from their encoding has the schema of what went in."""

import datetime
import re
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training import cli
from wgan_fast.train.data.decoder import Decoder
from wgan_fast.train.data.opening import Preparation, open_memory
from wgan_fast.train.data.sample_files import save_samples
from wgan_fast.train.data.sources import make_data
from wgan_fast.train.data.table_files import read_table
from wgan_fast.train.data.tables import MAX_CATEGORIES, TableEncoding, column_of

ROWS = 40
days = st.dates(datetime.date(1900, 1, 1), datetime.date(2100, 1, 1)).map(str)
moments = st.datetimes(datetime.datetime(1950, 1, 1), datetime.datetime(2050, 1, 1)).map(
    lambda moment: moment.replace(microsecond=0).isoformat(sep=" ")
)
CELLS = {
    "integers": st.integers(-(10**9), 10**9).map(str),
    "decimals": st.integers(-(10**7), 10**7).map(lambda number: f"{number / 100:.2f}"),
    "floats": st.floats(-1e300, 1e300, allow_nan=False).map(repr),
    "booleans": st.sampled_from(["True", "False"]),
    "digits": st.sampled_from(["0", "1", "2"]),
    "codes": st.sampled_from(["007", "00123", "12"]),
    "texts": st.sampled_from(["a, b", 'say "x"', "net_$_gross_$", "Zürich", "東京", "x y"]),
    "days": days,
    "moments": moments,
    "constant": st.just("7"),
    "comma": st.integers(0, 999).map(lambda number: f"{number // 10},{number % 10}"),
}


@st.composite
def tables(draw):
    kinds = draw(st.lists(st.sampled_from(sorted(CELLS)), min_size=1, max_size=4))
    table = {}
    for place, kind in enumerate(kinds):
        cells = st.one_of(CELLS[kind], st.none()) if draw(st.booleans()) else CELLS[kind]
        table[f"{kind}{place}"] = draw(st.lists(cells, min_size=ROWS, max_size=ROWS))
    return table


def is_alike(cell, kind):
    if kind in ("booleans", "digits", "codes", "texts", "constant"):
        return True  # a category, which is looked up below
    return re.fullmatch(
        {
            "integers": r"-?\d+",
            "decimals": r"-?\d+\.\d\d",
            "floats": r"-?\d+(\.\d+)?(e[+-]\d+)?",
            "days": r"\d{4}-\d\d-\d\d",
            "moments": r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d",
            "comma": r"\d+,\d",
        }[kind],
        cell,
    )


@settings(deadline=None, max_examples=60)
@given(tables(), st.integers(0, 100))
def test_any_vector_becomes_a_row_of_the_same_schema(table, seed):
    if all(len(set(cells)) == 1 for cells in table.values()):
        with pytest.raises(ValueError, match="the same cell in every row"):
            TableEncoding.of(table)
        return
    encoding = TableEncoding.of(table)
    width = sum(encoding.blocks)
    drawn = np.random.default_rng(seed).normal(scale=3, size=(50, width))
    assert TableEncoding.from_dict(asdict(encoding)) == encoding
    for name, cells in encoding.decode(drawn).items():
        kind, source = name.rstrip("0123456789"), table[name]
        assert all(None in source if cell is None else is_alike(cell, kind) for cell in cells)
        if encoding.columns[list(table).index(name)].kind == "category":
            assert set(cells) <= set(source)
        elif kind in ("integers", "decimals", "floats"):
            present = [float(cell) for cell in source if cell is not None]
            assert all(min(present) <= float(cell) <= max(present) for cell in cells if cell is not None)


@settings(deadline=None, max_examples=60)
@given(tables())
def test_rows_come_back(table):
    if all(len(set(cells)) == 1 for cells in table.values()):
        return
    encoding = TableEncoding.of(table)
    for column, cells in zip(encoding.columns, encoding.decode(encoding.encode(table)).values(), strict=True):
        source = table[column.name]
        assert [cell is None for cell in cells] == [cell is None for cell in source]
        if column.kind == "category":
            assert cells == source
            continue
        found, wanted = column.measure(cells), column.measure(source)
        spread = np.nanmax(wanted) - np.nanmin(wanted)
        # float32 coordinates, and a step of the quantiles where values are crowded
        assert np.nanmax(np.abs(found - wanted)) <= 0.02 * spread + 1e-6 * np.nanmax(np.abs(wanted)) + 1


def test_masses_and_tails_are_kept():
    """Zeros in a heavy-tailed column: the inverse of normal numbers has as many, and the same quantiles."""
    random = np.random.default_rng(0)
    values = np.where(random.random(4000) < 0.3, 0.0, random.pareto(1.1, 4000) * 100)
    cells = [f"{value:.2f}" for value in values]
    found = [float(cell) for cell in column_of("x", cells).decode(random.normal(size=(4000, 1)))]
    assert abs(np.mean(np.array(found) == 0) - 0.3) < 0.03
    wanted = np.quantile(values, [0.5, 0.9, 0.99])
    np.testing.assert_allclose(np.quantile(found, [0.5, 0.9, 0.99]), wanted, rtol=0.25)


def test_columns_are_left_out_on_request(tmp_path):
    (tmp_path / "x.csv").write_text('id,"last, first",n\n' + "".join(f"k{row},name{row},{row}\n" for row in range(30)))
    data = make_data(str(tmp_path / "x.csv"), drop='id, "last, first"')
    assert data.shape == (1,) and list(data.decoder.frame(torch.randn(3, 1))) == ["n"]
    frame = pandas.read_csv(tmp_path / "x.csv")
    samples = open_memory(frame, None, Preparation(drop='id,"last, first"'))
    assert list(samples.decoder.give(torch.randn(3, 1))) == ["n"]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_separators_and_an_index_are_recognised(tmp_path, separator):
    lines = [["", "price", "city"], ["0", "1.50", "Bern"], ["1", "2.25", "Zug"], ["2", "0.10", "Bern"]]
    (tmp_path / "x.csv").write_text("\n".join(separator.join(line) for line in lines) + "\n")
    table = read_table(tmp_path / "x.csv")
    assert table.columns == {"price": ["1.50", "2.25", "0.10"], "city": ["Bern", "Zug", "Bern"]}
    assert table.index == ""
    data = make_data(str(tmp_path / "x.csv"))
    save_samples(tmp_path / "o.csv", data.batch(0, 2, 0).samples, data.decoder)
    header, first, _ = (tmp_path / "o.csv").read_text().splitlines()
    assert header == separator.join(lines[0]) and first.split(separator)[0] == "0"


@pytest.mark.parametrize(("numbers", "first"), [((1, 2, 3), "1"), ((70, 7, 21), "7")])
def test_numbers_of_rows_are_no_data(tmp_path, numbers, first):
    """As R writes them, and pandas after a shuffle."""
    (tmp_path / "x.csv").write_text('"","x"\n' + "".join(f'"{row}",{row / 8}\n' for row in numbers))
    data = make_data(str(tmp_path / "x.csv"))
    assert data.decoder.columns == ("x",)
    save_samples(tmp_path / "o.csv", data.batch(0, 2, 0).samples, data.decoder)
    assert (tmp_path / "o.csv").read_text().splitlines()[1].startswith(f"{first},")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_what_spreadsheets_write_is_read(tmp_path, encoding):
    (tmp_path / "x.csv").write_text("prix;ville\n1,5;Orléans\n2,5;Genève\n", encoding=encoding)
    assert read_table(tmp_path / "x.csv").columns == {"prix": ["1,5", "2,5"], "ville": ["Orléans", "Genève"]}


def test_headers_of_years_are_names(tmp_path):
    (tmp_path / "x.csv").write_text("2019,2020\n1.5,2\n2.5,4\n")
    assert list(read_table(tmp_path / "x.csv").columns) == ["2019", "2020"]


def test_a_file_comes_back_with_its_labels(tmp_path):
    rows = [(f"{i / 8:.3f}", "yes" if i % 3 else "no", f"00{i % 4}") for i in range(60)]
    source = tmp_path / "x.csv"
    source.write_text("price,bought,code\n" + "".join(",".join(row) + "\n" for row in rows))
    data = make_data(str(source), label="bought")
    assert data.classes == ("no", "yes") and data.decoder.columns == ("price", "code")
    batch = data.batch(0, 20, 0)
    for name, separator in (("out.csv", ","), ("out.tsv", "\t")):
        save_samples(tmp_path / name, batch.samples, data.decoder, batch.labels)
        header, *lines = (tmp_path / name).read_text().splitlines()
        assert header.split(separator) == ["price", "bought", "code"]
        assert {tuple(line.split(separator)) for line in lines} <= {*rows}
    assert Decoder.from_dict(data.decoder.to_dict()) == data.decoder
    with pytest.raises(ValueError, match="path: table go into a file of type .csv, .tsv, .parquet"):
        save_samples(tmp_path / "out.npy", batch.samples, data.decoder)


def test_a_trained_table_samples_rows_of_its_schema(tmp_path):
    random = np.random.default_rng(0)
    lines = [
        f"{random.integers(18, 90)},{random.choice(['Bern', 'Zug', ''])},{random.normal():.3f},{'ab'[i % 2]}"
        for i in range(200)
    ]
    (tmp_path / "x.csv").write_text("age,city,net_gross,kind\n" + "\n".join(lines) + "\n")
    settings = "--conditional --label kind --steps 3 --width 8 --depth 1 --n-critic 1 --sample-every 3"
    result = cli("train", "--data", str(tmp_path / "x.csv"), "--out", str(tmp_path / "run"), *settings.split())
    assert result.exit_code == 0, result.output
    result = cli("sample", str(tmp_path / "run"), "--out", str(tmp_path / "o.csv"), "--label", "b", "--count", "20")
    assert result.exit_code == 0, result.output
    header, *rows = (tmp_path / "o.csv").read_text().splitlines()
    assert header == "age,city,net_gross,kind" and len(rows) == 20
    assert all(re.fullmatch(r"\d\d,(Bern|Zug|),-?\d\.\d{3},b", row) for row in rows)


def test_too_many_texts_are_named():
    with pytest.raises(ValueError, match=r"data: column 'key' holds 900 different texts in 900 rows, such as 'id0'"):
        column_of("key", [f"id{i}" for i in range(900)])
    with pytest.raises(ValueError, match="900 different texts in 900 rows, such as '00000'"):
        column_of("code", [f"{i:05}" for i in range(900)])
    many = [f"id{i}" for i in range(MAX_CATEGORIES + 1)] * 50
    with pytest.raises(ValueError, match="leave it out with --drop"):
        column_of("key", many)


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        (["1,234", "856"], "column 'x' has numbers with a comma for thousands, such as '1,234'; write 1234.5"),
        (["1,234.50"], "comma for thousands"),
        (["1,234,567"], "comma for thousands"),
        (["inf"], "holds numbers, but also 'inf'; a missing value is an empty cell"),
        (["?"], "holds numbers, but also '?'"),
    ],
)
def test_numbers_that_are_written_in_another_way_are_named(cells, words):
    """They must not be learned as a factor of a thousand apart, or refused as names."""
    with pytest.raises(ValueError, match=re.escape(words)):
        column_of("x", [*cells, *(f"{i}" if "," in cells[0] else f"{i / 7:.5f}" for i in range(100, 190))])


@pytest.mark.parametrize(("cell", "form"), [("31/12/20{}", "2024-12-31"), ("12.{} EUR", "1234.5")])
def test_the_forms_that_are_read_are_told(cell, form):
    with pytest.raises(ValueError, match=re.escape(form)):
        column_of("x", [cell.format(i) for i in range(60)])


def test_a_comma_in_each_number_comes_back():
    """As decimal comma or before thousands, which are then the same numbers but for a factor."""
    column = column_of("x", [f"{i},{i:03}" for i in range(1, 100)])
    assert re.fullmatch(r"\d+,\d{3}", column.decode(torch.zeros(1, 1).numpy())[0])


def test_a_number_of_thousands_of_digits_is_named():
    with pytest.raises(ValueError, match="column 'x': expected finite numbers, got inf"):
        column_of("x", ["9" * 5000, *map(str, range(30))])


@st.composite
def frames(draw):
    """DataFrames of every kind of column, with missing values where the type has them."""
    rows = 24

    def values(one, optional=True):
        missing = optional and draw(st.booleans())
        return draw(st.lists(st.one_of(one, st.none()) if missing else one, min_size=rows, max_size=rows))

    moments = st.datetimes(datetime.datetime(1950, 1, 1), datetime.datetime(2050, 1, 1))
    kinds = {
        "int8": lambda: values(st.integers(-100, 100), optional=False),
        # Beyond 2**53 whole numbers are rounded to those of a float64.
        "uint64": lambda: values(st.integers(0, 2**52).map(lambda number: number * 2**11), optional=False),
        "Int64": lambda: values(st.integers(-5, 5)),
        "float64": lambda: values(st.integers(-999, 999).map(lambda cents: cents / 100)),
        "float32": lambda: values(st.integers(-999, 999).map(lambda tenths: tenths / 10)),
        "bool": lambda: values(st.booleans(), optional=False),
        "boolean": lambda: values(st.booleans()),
        "str": lambda: values(st.sampled_from(["NA", "", "007", "x, y"])),
        "datetime64[ns]": lambda: values(moments),
        "datetime64[us, Europe/Zurich]": lambda: values(moments),
        "timedelta64[ns]": lambda: values(st.timedeltas(datetime.timedelta(0), datetime.timedelta(9))),
    }
    objects = {
        "bools": st.booleans(),
        "days": st.dates(datetime.date(1950, 1, 1), datetime.date(2050, 1, 1)),
        "prices": st.decimals(0, 99, places=2),
    }
    columns = {"varies": np.arange(rows) * 3}
    for place, kind in enumerate(
        draw(st.lists(st.sampled_from([*kinds, *objects, "category"]), min_size=1, max_size=5))
    ):
        if kind in kinds:
            drawn = pandas.Series(kinds[kind](), dtype="datetime64[us]" if "datetime" in kind else None)
            column = drawn.dt.tz_localize("UTC").astype(kind) if "," in kind else drawn.astype(kind)
        elif kind in objects:
            column = pandas.Series(values(objects[kind]), dtype=object)
        else:
            levels = draw(st.sampled_from([[3, 1, 2], ["b", "a", "unseen"], [1.5, 2.5]]))
            column = pandas.Categorical(values(st.sampled_from(levels[:2])), levels, ordered=draw(st.booleans()))
        columns[f"{kind}{place}"] = column
    return pandas.DataFrame(columns)


@settings(deadline=None, max_examples=25)
@given(frames())
def test_any_frame_comes_back_in_its_types(frame):
    samples = open_memory(frame, None, Preparation())
    drawn = samples.decoder.give(torch.randn(30, *samples.shape) * 2)
    assert drawn.dtypes.to_dict() == frame.dtypes.to_dict() and list(drawn) == list(frame)
    for name in frame:
        present = frame[name].dropna()
        assert len(present) < len(frame) or not drawn[name].isna().any()
        assert {type(value) for value in drawn[name].dropna()} <= {type(value) for value in present}
        found = drawn[name].dropna()
        if drawn[name].dtype == "category" or "str" in name:
            assert {*found} <= {*present}
        elif "float32" in name:
            assert not len(found) or (present.min() - 1e-5 <= found.min() and found.max() <= present.max() + 1e-5)
        elif len(found):
            assert present.min() <= found.min() and found.max() <= present.max()
    back = samples.decoder.give(samples.read(np.arange(len(frame))))
    assert back.isna().equals(frame.isna())
    for name in frame.columns[
        [column in ("bool", "boolean", "str", "category") for column in frame.columns.str.rstrip("0123456789")]
    ]:
        assert back[name].equals(frame[name])


def test_a_frame_goes_through_parquet(tmp_path):
    frame = pandas.DataFrame(
        {"n": np.arange(40) * 7, "city": ["Bern", None] * 20, "kind": pandas.Categorical(["a", "b"] * 20)}
    )
    frame.to_parquet(tmp_path / "x.parquet")
    data = make_data(str(tmp_path / "x.parquet"), label="kind")
    batch = data.batch(0, 20, 0)
    save_samples(tmp_path / "o.parquet", batch.samples, data.decoder, batch.labels)
    written = pandas.read_parquet(tmp_path / "o.parquet")
    assert written.dtypes.to_dict() == frame.dtypes.to_dict() and list(written) == ["n", "city", "kind"]
    assert {*map(tuple, written.astype(object).fillna("").values)} <= {
        *map(tuple, frame.astype(object).fillna("").values)
    }


def test_an_index_column_counts_the_samples(tmp_path):
    (tmp_path / "x.csv").write_text(",price\n" + "".join(f"{i},{i / 4:.2f}\n" for i in range(20)))
    data = make_data(str(tmp_path / "x.csv"))
    save_samples(tmp_path / "o.csv", data.batch(0, 3, 0).samples, data.decoder)
    lines = (tmp_path / "o.csv").read_text().splitlines()
    assert lines[0] == ",price" and [line.split(",")[0] for line in lines[1:]] == ["0", "1", "2"]


def test_a_row_without_a_label_is_named(tmp_path):
    (tmp_path / "x.csv").write_text("a,kind\n1,x\n2,\n3,y\n")
    with pytest.raises(ValueError, match="label: row 1 of .*x.csv has no 'kind'; fill it in or drop the row"):
        make_data(str(tmp_path / "x.csv"), label="kind")


def test_blocks_are_shares():
    from wgan_fast.train.networks.mlp import MLPGenerator

    generator = MLPGenerator(4, 6, width=8, depth=1, blocks=(1, 3, 2))
    made = generator(torch.randn(5, 4))
    torch.testing.assert_close(made[:, 1:4].sum(dim=1), torch.ones(5))
    torch.testing.assert_close(made[:, 4:].sum(dim=1), torch.ones(5))


UNFIT = {
    "intervals": pandas.cut(pandas.Series(range(ROWS)), 4),
    "several": pandas.Series([1, "a"] * 20, dtype=object),
    "several_categories": pandas.Series([1, "1"] * 20, dtype="category"),
    "times": pandas.Series([datetime.time(place % 3) for place in range(ROWS)], dtype=object),
    "lists": pandas.Series([[1], [2]] * 20, dtype=object),
    "bytes": pandas.Series([b"a", b"b"] * 20, dtype=object),
}


def test_columns_without_a_way_back_are_refused_before_a_training() -> None:
    frame = pandas.DataFrame({"x": range(ROWS), **UNFIT})
    with pytest.raises(TypeError, match="'intervals' .*, 'several' .*, 'bytes' .*astype") as error:
        open_memory(frame, None, Preparation())
    assert all(f"{name!r} (" in str(error.value) for name in UNFIT)
    samples = open_memory(frame, None, Preparation(drop=",".join(UNFIT)))
    assert list(samples.decoder.give(torch.randn(3, 1))) == ["x"]


def test_what_programs_put_into_frames_comes_back() -> None:
    arrow = pytest.importorskip("pyarrow")
    moments = pandas.Series(pandas.date_range("2020", periods=ROWS, freq="h", tz="UTC"))
    frame = pandas.DataFrame(
        {
            "": range(ROWS),  # no index, as in a file it would be
            "whole": pandas.Series(range(ROWS), dtype=pandas.ArrowDtype(arrow.int32())),
            "text": pandas.Series(["a", None] * 20, dtype=pandas.ArrowDtype(arrow.string())),
            "moment": moments.astype(pandas.ArrowDtype(arrow.timestamp("us", tz="Europe/Paris"))),
            "zone": moments.dt.tz_convert("Europe/Berlin").dt.normalize().astype("category"),
            "scalars": pandas.Series([*np.arange(ROWS)], dtype=object),
            "either": pandas.Series([1, 2.5] * 20, dtype=object),
        }
    )
    samples = open_memory(frame, None, Preparation())
    back = samples.decoder.give(samples.read(np.arange(ROWS)))
    assert back.dtypes.to_dict() == frame.dtypes.to_dict() and list(back) == list(frame)
    assert all(back[name].equals(frame[name]) for name in frame if name != "either")
    assert back["either"].tolist() == frame["either"].tolist()


def test_names_and_the_index_of_a_frame() -> None:
    frame = pandas.DataFrame({"a": range(ROWS), "b": range(ROWS)})
    for names in (["a", 1], [("a", "b"), ("a", "c")], [True, False], ["a", None]):
        with pytest.raises(TypeError, match="texts or integers as names; data.columns = "):
            open_memory(frame.set_axis(names, axis=1), None, Preparation())
    open_memory(frame[::-1], None, Preparation())  # rows of another frame are no news
    with pytest.warns(UserWarning, match=r"index of the DataFrame is left out; data.reset_index\(\)"):
        open_memory(frame.set_index("a"), None, Preparation())


def test_numbers_of_a_file_become_numbers_of_a_frame(tmp_path: Path) -> None:
    """Also those with a decimal comma, and those beyond 64 bits."""
    rows = "\n".join(f"{row},5;{10**30 * row}" for row in range(ROWS))
    (tmp_path / "x.csv").write_text(f"x;n\n{rows}\n")
    data = make_data(str(tmp_path / "x.csv"))
    frame = data.decoder.frame(data._read(np.arange(ROWS)).samples)
    for numbers in (frame["x"] - 0.5, frame["n"] / 1e30):
        assert np.abs(numbers - np.arange(ROWS)).max() < 1e-3  # encoded in float32


def test_names_to_drop_that_are_no_line_of_csv_are_told(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b\n" + "1,2\n3,4\n" * 9)
    with pytest.raises(ValueError, match="^drop: expected names"):
        make_data(str(tmp_path / "x.csv"), drop="a\nb")
