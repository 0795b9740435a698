"""Examples of each command, for its help."""

from __future__ import annotations

EXAMPLES = {
    "build": r"""
  hotstart build shop.search:encoder -o encoder.hot
  hotstart build shop.search:encoder --dynamic 'input_ids:0=batch[1..16]' \
      --dynamic 'input_ids:1=seq[1..512]' --dynamic attention_mask:0=batch \
      --dynamic attention_mask:1=seq --range seq=1..64 --size batch=1 -o encoder.hot""",
    "observe": """
  hotstart observe serve.py --module model.encoder -o calls.json --arguments='--port 8000'
  hotstart build shop.search:encoder --calls calls.json -o encoder.hot""",
    "inspect": """
  hotstart inspect encoder.hot
  hotstart inspect encoder.hot --json | jq .fingerprint""",
    "report": """
  hotstart report encoder.hot                     # reads encoder.report.json, if it is there
  hotstart report encoder.hot --html encoder.html
  hotstart report encoder.hot --trace encoder.json
  hotstart report old.report.json encoder.hot     # what differs""",
    "explain-capture": """
  hotstart explain-capture shop.search:encoder""",
    "bisect": """
  hotstart bisect shop.search:encoder
  hotstart bisect shop.search:encoder --file encoder.hot --tolerance 1e-5""",
    "repro": """
  hotstart build shop.search:encoder --debug-dir debug
  hotstart repro debug/hotstart/piece_3""",
    "profile": """
  hotstart profile encoder.hot --factory shop.search:encoder
  hotstart profile encoder.hot --weights encoder.safetensors --size batch=8 --size seq=128""",
    "verify": """
  hotstart verify encoder.hot
  hotstart verify encoder.hot --trusted-key team.pub""",
    "load-check": """
  hotstart load-check encoder.hot""",
    "keygen": """
  hotstart keygen team                            # writes team and team.pub
  hotstart build shop.search:encoder -o encoder.hot --sign-key team""",
    "c-library": """
  hotstart c-library build                        # hotstart.h and libhotstart.so""",
    "explain": """
  hotstart explain shop.search:encoder --cache /var/cache/models
  hotstart explain shop.search:encoder --cache /var/cache/models --html miss.html""",
    "warm": """
  hotstart warm shop.search:encoder shop.rank:model --cache /var/cache/models
  hotstart warm shop.search:encoder --remote s3://models/cache --sign-key team""",
    "cache": """
  hotstart cache ls
  hotstart cache gc --max-bytes 5000000000 --max-age-days 30
  hotstart cache push --remote s3://models/cache""",
    "completion": """
  hotstart completion bash > ~/.local/share/bash-completion/completions/hotstart
  hotstart completion zsh > ~/.zfunc/_hotstart""",
}
"""Lines to be typed, by command; tests parse them."""
