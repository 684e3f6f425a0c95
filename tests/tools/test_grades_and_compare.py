"""`grades` and `compare`, as a user runs them."""

import csv
import json

import numpy as np
import pytest

from steatosis_d2.cli import main


@pytest.fixture
def tables(tmp_path):
    """A summary of 60 slides, grades and PDFF of the same cases."""
    rng = np.random.default_rng(0)
    fat = np.exp(rng.uniform(np.log(0.3), np.log(40), 60))
    grade = np.searchsorted([2, 6, 14], fat)
    with (tmp_path / "summary.csv").open("w") as file:
        file.write("file,region,case,fault,fat_area_percent\n")
        file.writelines(f"L{i}.svs,,,,{value:.5g}\n" for i, value in enumerate(fat))
    with (tmp_path / "grades.csv").open("w") as file:
        file.write("case,grade\n")
        file.writelines(f"L{i},S{value}\n" for i, value in enumerate(grade))
    with (tmp_path / "pdff.csv").open("w") as file:
        file.write("slide;PDFF\n")
        file.writelines(
            f"L{i};{f'{value:.2f}'.replace('.', ',')}\n"
            for i, value in enumerate(fat * np.exp(rng.normal(0, 0.2, 60)))
        )
    return tmp_path


def run(*words):
    main([str(word) for word in words])


def test_limits_are_fitted_judged_and_applied(tables, capsys):
    limits = tables / "limits.json"
    run("grades", "fit", tables / "summary.csv", tables / "grades.csv", "--output", limits,
        "--graded-by", "two pathologists of Torino")  # fmt: skip
    printed = capsys.readouterr().out
    assert "kappa, quadratic weights" in printed and "60 cases" in printed
    content = json.loads(limits.read_text())
    assert [one["grade"] for one in content["grades"]] == ["S0", "S1", "S2", "S3"]
    assert content["grades"][0]["below"] == pytest.approx(2, rel=0.25)
    assert (content["cases"], content["graded_by"]) == (60, "two pathologists of Torino")
    page = limits.with_suffix(".html").read_text()
    assert "two pathologists of Torino" in page and "<svg" in page and "Confusion" in page
    run("grades", "apply", tables / "summary.csv", limits, "--output", tables / "graded.csv")
    with (tables / "graded.csv").open() as file:
        graded = [row["grade"] for row in csv.DictReader(file)]
    with (tables / "grades.csv").open() as file:
        given = [row["grade"] for row in csv.DictReader(file)]
    assert np.mean([a == b for a, b in zip(graded, given, strict=True)]) > 0.95


def test_a_reference_is_compared(tables, capsys):
    run("compare", tables / "summary.csv", tables / "pdff.csv", "--output", tables / "agreement")
    printed = capsys.readouterr().out
    assert "60 cases: fat_area_percent, PDFF" in printed and "ICC(2,1)" in printed
    figures = json.loads((tables / "agreement" / "agreement.json").read_text())["figures"]
    assert figures["spearman"]["low"] < figures["spearman"]["value"] < figures["spearman"]["high"]
    assert len((tables / "agreement" / "cases.csv").read_text().splitlines()) == 61
    first = (tables / "agreement" / "agreement.html").read_bytes()
    run("compare", tables / "summary.csv", tables / "pdff.csv", "--output", tables / "agreement")
    assert (tables / "agreement" / "agreement.html").read_bytes() == first


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["grades", "fit", "summary.csv", "short.csv", "--output", "x.json"], "no 'grade' of 'L1'"),
        (["grades", "apply", "summary.csv", "gone.json", "--output", "x.csv"], "does not exist"),
        (["compare", "summary.csv", "gone.csv"], "does not exist"),
        (["compare", "summary.csv", "short.csv", "--skip-missing"], "1 cases in common"),
    ],
)
def test_faults_are_one_line(tables, capsys, monkeypatch, words, message):
    monkeypatch.chdir(tables)
    (tables / "short.csv").write_text("case,grade\nL0,1\n")
    with pytest.raises(SystemExit) as stopped:
        run(*words)
    assert stopped.value.code == 1
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
