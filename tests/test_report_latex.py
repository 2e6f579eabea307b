"""The report's LaTeX tables: what they print, and that pdflatex takes them, whatever an experiment is called."""

import re
import shutil
import string
import subprocess
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import pytest

from acn_cl.reports import latex, make_report

synthetic = SimpleNamespace(**run_path(str(Path(__file__).with_name("synthetic_runs.py"))))

EVIL = [
    '<script>alert("1")</script> $x$ & _b_ \\input{c} | {{ 7*7 }}',
    string.punctuation,
    "[a] *b* --- ``c'' ?`d\n\ne\tf\x07",
    "".join(map(chr, range(0xA0, 0x100))) + " λ ± − · – ′ 深度 \U0001f600",
]


@pytest.fixture
def compile_latex(tmp_path):
    """Compiles a document's body; gives its text back, without white space, where pdftotext is there."""
    if not shutil.which("pdflatex"):
        pytest.skip("pdflatex is not installed")

    def compiled(body):
        document = rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}\tiny {body} \end{{document}}"
        (tmp_path / "paper.tex").write_text(document, encoding="utf-8")
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "paper.tex"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=120)
        assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]
        return (tmp_path / "paper.log").read_text(errors="replace")

    return compiled


def test_every_table_of_a_report_compiles(compile_latex, tmp_path):
    store = synthetic.write_grid(tmp_path / "runs")
    for seed in (0, 1):
        for number, name in enumerate(EVIL):
            axes = {"backbone.name": name, "strategy.name": "naive"}
            extra = {"comparisons": [{"experiments": ["evil-0", "evil-1"]}]}
            synthetic.write_run(store, f"evil-{number}", seed, axes=axes, settings={"name": EVIL[0]}, extra=extra)
    tables = make_report([store], tmp_path / "out").with_name("tables")
    names = {path.stem for path in tables.iterdir()}
    assert len([name for name in names if name.startswith("declared-")]) == 1
    assert {"summary-from-learned", "summary-max-all", "comparisons-backbone.name-average_forgetting-max-all"} <= names
    log = compile_latex("\\clearpage\n".join(rf"\input{{{path.as_posix()}}}" for path in sorted(tables.iterdir())))
    assert "Missing character" not in log


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("a_b & 50 %", r"a\_b \& 50 \%"),
        ("\\input{x}", r"\textbackslash{}input\{x\}"),
        ("52.3 ± 1.2", r"52.3 $\pm$ 1.2"),
        ("−1.3", "$-$1.3"),
        ("107\u202f872", r"107\,872"),
        ("a\n\tb", "a b"),
        ("a--b", "a{-}{-}b"),
        ("é", "é"),
        ("深", "{[}U+6DF1]"),
    ],
)
def test_text_is_printed_as_it_is(text, printed):
    assert latex.escape(text) == printed


def test_what_the_test_found_is_bold_and_nothing_else(tmp_path):
    for seed in (0, 1, 2, 3):
        for name, forgets in (("a", 0.2), ("b", 0.2001), ("c", 0.5)):
            synthetic.write_run(tmp_path / "runs", name, seed, axes={"backbone.name": name}, forgets=forgets)
    tables = make_report([tmp_path / "runs"], tmp_path / "out").with_name("tables")
    table = (tables / "comparisons-backbone.name-average_forgetting-from-learned.tex").read_text()
    bold = {row[:5]: r"\textbf" in row for row in re.findall(r"^[abc] & .*", table, re.M)}
    assert bold == {"a & b": False, "a & c": True, "b & c": True}
