"""The ratios as a picture: SVG, by hand."""

import math
from xml.sax.saxutils import escape

COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"]
LEFT, RIGHT, WIDTH, TOP, BAND = 270, 30, 960, 78, 13


def svg(results, title):
    """One band for each metric, a dot for each contestant's median, a line from its least round to its greatest; grey is
    what two equal things differed by."""
    names = results.contestants()
    rows = [(metric, results.noise(key), [results.ratio(key, name) for name in names])
            for key, metric in results.metrics.items() if results.noise(key)]
    values = [value for _, noise, ratios in rows for ratio in ratios if ratio for value in ratio.rounds]
    values += [value for _, noise, _ in rows for value in (noise, 1 / noise)]
    least, most = math.log10(min(values)) - 0.05, math.log10(max(values)) + 0.05
    height = BAND * len(names) + 10
    bottom = TOP + height * len(rows)

    def x(value):
        return LEFT + (math.log10(value) - least) / (most - least) * (WIDTH - LEFT - RIGHT)

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom + 34}" font-family="sans-serif" '
           'font-size="12">', f'<rect width="{WIDTH}" height="{bottom + 34}" fill="white"/>',
           f'<text x="12" y="24" font-size="16">{escape(title)}</text>']
    at = LEFT
    for name, colour in zip(names, COLOURS):
        out.append(f'<circle cx="{at}" cy="46" r="5" fill="{colour}"/><text x="{at + 10}" y="50">{escape(name)}</text>')
        at += 34 + 7 * len(name)
    out.append(f'<rect x="{at}" y="40" width="22" height="12" fill="#dddddd"/>'
               f'<text x="{at + 28}" y="50">noise; a hollow dot is within it</text>')
    for row, (metric, noise, ratios) in enumerate(rows):
        y = TOP + row * height
        if row % 2 == 0:
            out.append(f'<rect x="0" y="{y}" width="{WIDTH}" height="{height}" fill="#f6f6f6"/>')
        better = "more" if metric.more_is_better else "less"
        out.append(f'<rect x="{x(1 / noise):.1f}" y="{y}" width="{x(noise) - x(1 / noise):.1f}" height="{height}" '
                   f'fill="#dddddd"/><text x="12" y="{y + height / 2 - 2}">{escape(metric.name)}</text>'
                   f'<text x="12" y="{y + height / 2 + 12}" fill="#777777" font-size="10">{better} is better</text>')
        for number, (ratio, colour) in enumerate(zip(ratios, COLOURS)):
            if ratio:
                middle = y + 5 + BAND * (number + 0.5)
                fill = colour if ratio.is_resolved else "white"
                out.append(
                    f'<line x1="{x(min(ratio.rounds)):.1f}" x2="{x(max(ratio.rounds)):.1f}" y1="{middle}" y2="{middle}" '
                    f'stroke="{colour}" stroke-width="2"/><circle cx="{x(ratio.median):.1f}" cy="{middle}" r="4" '
                    f'fill="{fill}" stroke="{colour}" stroke-width="1.5"/>')
    for power in range(math.floor(least), math.ceil(most) + 1):
        for step in (1, 2, 5):
            value = step * 10.0 ** power
            if least <= math.log10(value) <= most:
                weight = ' stroke="black"' if value == 1 else ' stroke="#bbbbbb" stroke-dasharray="2 3"'
                out.append(f'<line x1="{x(value):.1f}" x2="{x(value):.1f}" y1="{TOP}" y2="{bottom}"{weight}/>'
                           f'<text x="{x(value):.1f}" y="{bottom + 16}" text-anchor="middle">{value:g}</text>')
    out.append(f'<text x="{WIDTH - RIGHT}" y="{bottom + 31}" text-anchor="end" fill="#777777" font-size="10">'
               f'ratio to {escape(results.control)}, logarithmic</text></svg>')
    return "\n".join(out) + "\n"
