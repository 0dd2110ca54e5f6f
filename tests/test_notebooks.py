"""Every notebook is executed from top to bottom by a real kernel."""

from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_runs(notebook):
    nbformat = pytest.importorskip("nbformat", reason="the extra `notebook` is not installed")
    nbclient = pytest.importorskip("nbclient", reason="the extra `notebook` is not installed")
    document = nbformat.read(notebook, as_version=4)
    nbclient.NotebookClient(document, timeout=120, resources={"metadata": {"path": str(notebook.parent)}}).execute()
    assert any(cell.get("outputs") for cell in document.cells)
