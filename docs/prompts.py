"""Code with prompts is a session at the prompt for the highlighter, so that what is copied leaves the prompts out."""

import re
from typing import Any


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Calls a block `pycon` where it begins with a prompt."""
    return re.sub(r"^( *)```python\n(?= *>>> )", r"\1```pycon\n", markdown, flags=re.MULTILINE)
