"""`--columns`, `--sort` and `--limit`: which columns and rows are printed, and in which order."""

import csv
import io
import json

import pytest

from aiovbo._cli._app import main
from aiovbo._cli._fields import natural_key
from aiovbo.testing import BackupServer


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_numbers_in_names_count_by_their_value() -> None:
    """However many digits they have, and whatever case the letters have."""
    names = ["2", "10", "vbo2", "VBO3", "vbo10", "vbo10-a", "vbo010", "vbo-2", "x" + "9" * 5000]
    ordered = sorted(sorted(names), key=natural_key)
    assert ordered.index("2") < ordered.index("10")
    assert ordered.index("vbo2") < ordered.index("VBO3") < ordered.index("vbo10") < ordered.index("vbo10-a")


@pytest.mark.usefixtures("inventory")
def test_columns_are_chosen_by_the_names_of_csv_or_of_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    """In the order given; case, spaces and hyphens do not matter."""
    assert main(["sessions", "--columns", "id,initiated-by,START", "--output", "csv"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "id,initiatedBy,creationTime"
    assert main(["sessions", "--columns", "result", "--columns", "server, took"]) == 0
    assert capsys.readouterr().out.splitlines()[0].split() == ["result", "server", "took"]
    assert main(["sessions", "--columns", "type", "--ids"]) == 0
    assert capsys.readouterr().out.splitlines()[0].split() == ["id", "type"]


@pytest.mark.usefixtures("inventory")
def test_rows_are_sorted_by_columns_and_what_has_no_value_comes_last(
    servers: list[BackupServer], capsys: pytest.CaptureFixture[str]
) -> None:
    """A hyphen reverses the order of one column."""
    servers[1].world.add(end_time=None)
    command = ["sessions", "--output", "csv", "--columns", "server,endTime", "--sort"]
    assert main([*command, "-server,end"]) == 0
    found = [(row["server"], row["endTime"]) for row in rows(capsys.readouterr().out)]
    assert [server for server, _ in found] == 5 * ["vbo2"] + 6 * ["vbo1"] + 5 * ["vbo0"]
    assert [end for server, end in found if server == "vbo2"] == sorted(
        end for server, end in found if server == "vbo2"
    )
    for order in ("end", "-end"):
        assert main([*command, order]) == 0
        ends = [row["endTime"] for row in rows(capsys.readouterr().out)]
        assert ends[-1] == ""
        assert ends[:-1] == sorted(ends[:-1], reverse=order.startswith("-"))


@pytest.mark.usefixtures("inventory")
@pytest.mark.parametrize("output", ["table", "csv", "json", "jsonl"])
def test_a_limit_keeps_the_first_rows_of_the_order(output: str, capsys: pytest.CaptureFixture[str]) -> None:
    """In every format; the line below a table says how many there are."""
    assert main(["sessions", "--limit", "4", "--sort", "start", "--output", output]) == 0
    out, err = capsys.readouterr()
    if output == "json":
        times = [one["creationTime"] for one in json.loads(out)]
    elif output == "jsonl":
        times = [json.loads(line)["creationTime"] for line in out.splitlines()]
    else:
        times = out.splitlines()[1:]
        assert ("4 of 15 sessions of 3 servers" in err) is (output == "table")
    assert len(times) == 4
    assert output in ("table", "csv") or times == sorted(times)
