"""`python tests/support/screenshots.py URL FILE`: the pictures of the playground in docs/, of a cluster that answers.

URL is the page of a running cluster without keys (`python -m demo --keep`), FILE a WAV with a few utterances.
"""

from __future__ import annotations

import sys
from pathlib import Path

from browser import chromium
from PIL import Image

DOCS = Path(__file__).resolve().parents[2] / "docs"
PATIENCE_MS = 240_000
COLOURS = 256  # of a picture: a third of the bytes
VIEWS = {"light": (1120, 940, "light"), "dark": (1120, 940, "dark"), "narrow": (360, 1380, "dark")}


def main(url: str, recording: str) -> int:
    """Writes docs/playground-….png; returns the exit status."""
    with chromium() as browser:
        for name, (width, height, scheme) in VIEWS.items():
            context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
            page = context.new_page()
            page.goto(url)
            page.set_input_files("#file", recording)
            page.get_by_text("Done.", exact=True).wait_for(timeout=PATIENCE_MS)
            path = DOCS / f"playground-{name}.png"
            page.screenshot(path=path)
            with Image.open(path) as image:
                fewer = image.convert("RGB").quantize(COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
                fewer.save(path, optimize=True)
            print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
            context.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
