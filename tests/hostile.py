"""Strings that others may write where we show them, and what shown text may not hold."""

# Markup, half a character, escape codes, commands, mathematics, right-to-left, a password, and what closes tags and tables.
NASTY = ["[/INST]", "[item_0]", "\ud800half", "\x1b[31mred\x07", "a\n::error file=x::owned", "##[error]owned", "$\\frac{", "\u202eback",
         "https://me:hunter2@host/x?sig=hunter2", "</script><script>alert(1)</script>", "| a | `b` |", "\u2028line", "<a_0>\r"]  # fmt: skip


def harmless(text: str) -> None:
    assert "hunter2" not in text
    assert not [c for c in text if c != "\n" and not c.isprintable() and c != "\t"], [
        c for c in text if not c.isprintable()
    ]
    assert not [line for line in text.splitlines() if line.strip().startswith("::error") or "##[" in line]
