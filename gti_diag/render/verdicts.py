"""Signs and colours of a verdict (never colour alone). Imports nothing: terminals start fast."""

VERDICTS = {
    "collapsed": {"sign": "✗", "rich": "bold red", "emoji": "🔴"},
    "degenerate": {"sign": "▲", "rich": "bold yellow", "emoji": "🟠"},
    "unstructured": {"sign": "◆", "rich": "bold magenta", "emoji": "🟡"},
    "untested": {"sign": "?", "rich": "bold cyan", "emoji": "🔵"},
    "healthy": {"sign": "✓", "rich": "bold green", "emoji": "🟢"},
    None: {"sign": "–", "rich": "dim", "emoji": "⚪"},
}
