"""The code blocks of the documentation do what they say."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
COOKBOOK = ROOT / "docs" / "cookbook.md"

FILL = """
static void fill(float *x, int count) {
  for (int i = 0; i < count; ++i) x[i] = (float)rand() / (float)RAND_MAX - 0.5f;
}
"""


def blocks(page, language):
    """(heading, code) of each block of a language."""
    found = []
    for part in re.split(r"^#+ ", page.read_text(), flags=re.MULTILINE)[1:]:
        heading = part.split("\n", 1)[0]
        found += [(heading, code) for code in re.findall(rf"^```{language}\n(.*?)^```$", part, re.MULTILINE | re.DOTALL)]
    return found


def of_sections(page):
    """The Python blocks of a section run one after the other, all after those of the page's own heading."""
    sections = {}
    for heading, code in blocks(page, "python"):
        sections.setdefault(heading, []).append(code)
    beginning, *rest = sections.items()
    return [pytest.param(beginning[1] + codes, id=heading) for heading, codes in rest]


@pytest.mark.parametrize("codes", of_sections(COOKBOOK))
def test_cookbook(codes):
    names = {}
    for code in codes:
        exec(compile(code, str(COOKBOOK), "exec"), names)


def test_every_recipe_is_there_in_both_languages():
    assert [heading for heading, _ in blocks(COOKBOOK, "c")] == [heading for heading, _ in blocks(COOKBOOK, "python")]


def test_cookbook_in_c(tmp_path):
    beginning, *recipes = (code for _, code in blocks(COOKBOOK, "c"))
    functions = "\n".join(f"static void recipe_{i}(void) {{\n{code}}}" for i, code in enumerate(recipes))
    calls = "\n".join(f"  recipe_{i}();" for i in range(len(recipes)))
    filled = "".join(f"  fill(&{x}[0][0][0][0], B * H * N * D);\n" for x in "qkv")
    run_c(tmp_path, f"{beginning}{FILL}{functions}\nint main(void) {{\n{filled}{calls}\n}}\n")


def test_install_in_c(tmp_path):
    [(_, code)] = blocks(ROOT / "docs/install.md", "c")
    printed = run_c(tmp_path, code)
    assert re.fullmatch(r"(\S+ ){4}on \w+\n", printed)


@pytest.mark.parametrize("page", ["README.md", "bindings/python/README.md"])
def test_readmes(page):
    [(_, code)] = blocks(ROOT / page, "python")
    exec(compile(code, page, "exec"), {})


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", *(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md"))])
def test_links(page):
    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text())
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []


def run_c(folder, code):
    """Compiled as docs/install.md says, against the library that pkg-config finds."""
    if not shutil.which("cc") or not shutil.which("pkg-config"):
        pytest.skip("no cc or no pkg-config")
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "attend"], capture_output=True, text=True, check=False)
    if flags.returncode:
        pytest.skip("pkg-config finds no attend")
    libraries = subprocess.run(["pkg-config", "--variable=libdir", "attend"], capture_output=True, text=True, check=True)
    source, program = folder / "code.c", folder / "code"
    source.write_text(code)
    warnings = ["-Wall", "-Wextra", "-Werror"]
    subprocess.run(["cc", "-std=c99", *warnings, source, *flags.stdout.split(), "-lm", "-o", program], check=True)
    environment = {**os.environ, "LD_LIBRARY_PATH": libraries.stdout.strip()}
    return subprocess.run([program], check=True, capture_output=True, text=True, env=environment).stdout
