"""The README's program prints what the README says."""

import contextlib
import io
import pathlib
import re

import pytest

README = pathlib.Path(__file__).parent.parent / "README.md"


@pytest.mark.slow
def test_the_program_prints_what_is_written():
    text = README.read_text()
    code, printed = re.search(r"```python\n(.*?)```\n\n```text\n(.*?)```", text, re.S).groups()
    assert len([line for line in code.splitlines() if line]) <= 18
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "README.md", "exec"), {})
    assert out.getvalue() == printed


def test_two_commands_do_the_set_up():
    assert len(re.findall(r"^python3 -m venv ", README.read_text(), re.M)) == 2
