"""Names that pages and figures must stand."""

HOSTILE = [
    "$x_{$",
    "$\\frac$",
    "<script>alert(1)</script>",
    "a & b",
    "写真",
    "Bär",
    "\u202eabc",
    "a\nb",
    "\udcff",
    "😀",
    "",
    "\x00\ufffe",
]
