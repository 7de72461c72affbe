"""The serve configs of ops/, made from those of the repository: `python tests/support/serve_configs.py` writes them.

A container listens on its own address, wants keys, and has its files elsewhere; nothing else differs.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "ops" / "compose" / "serve_config.yaml"
RAY_SERVICE = ROOT / "ops" / "kubernetes" / "rayservice.yaml"
BLOCK = re.compile(r"(?<=\n  serveConfigV2: \|\n).*?(?=  rayClusterConfig:\n)", re.DOTALL)

KEYS = "      auth: { mode: keys, file: /etc/amser/keys.json }\n"
REDIS = '      idempotency: { store: redis, redis_url: "redis://redis:6379/0" }\n'


def for_compose() -> str:
    """serve_config.fused.yaml as ops/compose.yaml serves it."""
    text = "# Made from serve_config.fused.yaml by tests/support/serve_configs.py\n" + _without_head(
        ROOT / "serve_config.fused.yaml"
    )
    return _args(_listening(text), REDIS, KEYS)


def for_kubernetes() -> str:
    """serve_config.yaml as KubeRay serves it: a proxy on every node, and nodes that are added where replicas wait."""
    text = _args(_listening(_without_head(ROOT / "serve_config.yaml")), KEYS)
    text = text.replace("proxy_location: HeadOnly", "proxy_location: EveryNode")
    text = re.sub(r" +spare:.*\n", "", text)  # for clusters that add no nodes
    return re.sub(r"( +)policy_kwargs:\n", r"\g<0>\1  elastic: true\n", text)


def _without_head(file: Path) -> str:
    """Without the comment at the top, which is about the file."""
    return re.sub(r"\A(#.*\n)+\n", "", file.read_text(encoding="utf-8"))


def _listening(text: str) -> str:
    return re.sub(r"host: 127\.0\.0\.1.*", "host: 0.0.0.0", text)


def _args(text: str, *lines: str) -> str:
    """With `lines` in `args`, each where one of the same name stands, else first."""
    for line in lines:
        same = re.compile(rf"^      {line.split(':')[0].strip()}:.*\n(?:       .*\n)*", re.MULTILINE)
        if same.search(text):
            text = same.sub(lambda _, line=line: line, text, count=1)
        else:
            text = text.replace("    args:\n", f"    args:\n{line}", 1)
    return text


def _indented(text: str) -> str:
    return "".join(f"    {line}" if line.strip() else line for line in text.splitlines(keepends=True))


if __name__ == "__main__":
    COMPOSE.write_text(for_compose(), encoding="utf-8")
    service = RAY_SERVICE.read_text(encoding="utf-8")
    RAY_SERVICE.write_text(BLOCK.sub(lambda _: _indented(for_kubernetes()), service), encoding="utf-8")
