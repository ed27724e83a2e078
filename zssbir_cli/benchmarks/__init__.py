"""Sketchy, TU-Berlin and QuickDraw: classes, splits, layouts, published lists, sources, verification."""
