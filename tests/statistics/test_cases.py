"""Tables of cases, as labs have them."""

import pytest

from steatosis_d2.errors import InputError
from steatosis_d2.statistics.cases import join_cases, read_case_values


@pytest.fixture
def read(tmp_path):
    """Function that writes a table and reads a column of it."""

    def write_and_read(text, *, name="a.csv", encoding="utf-8", **options):
        (tmp_path / name).write_bytes(text.encode(encoding))
        return read_case_values(tmp_path / name, **options)

    return write_and_read


@pytest.mark.parametrize(
    "text",
    [
        "case,grade\nL1,0\nL2,1\n",
        "Case;Grade\r\nL1;0\r\nL2;1\r\n",
        "file\tgrade\nslides/L1.svs\t0\nslides\\L2.ndpi\t1\n",
        "patient,grade\nL1, 0\nL2 ,1\n",
    ],
)
def test_tables_of_every_form(read, text):
    assert read(text).values == {"L1": "0", "L2": "1"}


def test_a_byte_order_mark_and_commas_in_numbers(read):
    values = read("\ufeffcase;fat\nL1;3,5\nL2;10\n")
    assert values.as_numbers() == {"L1": 3.5, "L2": 10}


def test_slides_of_a_case_count_by_their_tissue(read):
    text = (
        "file,region,case,fault,tissue_area_mm2,tissue_area_px,fat_area_percent\n"
        "a_1.svs,,a,,3,30,10\na_2.svs,,a,,1,10,2\na_2.svs,core,a,,1,10,99\n"
        "b.svs,,b,is damaged,,,\nc.svs,,c,,1,10,5\n"
    )
    values = read(text, usual=("fat_area_percent",))
    assert values.as_numbers() == {"a": 8, "c": 5}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read"),
        ("case\nL1\n", "1 columns"),
        ("case,grade\n", "0 rows"),
        ("case,grade\nL1,\nL2,1\n", "no 'grade' of 'L1'"),
        ("case,grade\nL1,1\nL1,1\n", "'L1' more than once"),
        ("case,a,b\nL1,1,2\n", "columns a, b; name the one"),
    ],
)
def test_what_is_wrong_is_said(read, text, message):
    with pytest.raises(InputError, match=message):
        read(text)


def test_a_column_that_is_not_there_is_named(read, tmp_path):
    with pytest.raises(InputError, match="no column 'x'; it has case, grade"):
        read("case,grade\nL1,1\n", column="x")
    with pytest.raises(InputError, match="does not exist"):
        read_case_values(tmp_path / "gone.csv")
    with pytest.raises(InputError, match="of case 'L1' is 'high'; expected a number"):
        read("case,grade\nL1,high\n").as_numbers()


def test_cases_without_a_partner_are_an_error_or_left_out(read, caplog):
    first, second = read("case,x\nA,1\nB,2\n"), read("case,y\nB,1\nC,2\n", name="b.csv")
    with pytest.raises(InputError, match="no 'y' of 'A'"):
        join_cases(first, second)
    assert join_cases(first, second, skip_missing=True) == ["B"]
    assert "'A'" in caplog.text and "'C'" in caplog.text
    with pytest.raises(InputError, match="no case in common"):
        join_cases(first, read("case,z\nX,1\n", name="c.csv"))
