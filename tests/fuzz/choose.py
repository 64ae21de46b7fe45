"""Chooses a few small inputs that together reach as much as many do.

choose.py CONTROL TARGET: CONTROL is what `-set_cover_merge=1 -merge_control_file=CONTROL` of libFuzzer left behind; it
says what each file reached. The chosen files replace those in the folder TARGET.
"""

import hashlib
import pathlib
import sys

FILES_MAX = 60
BYTES_MAX = 2048
# A place in the code has as many features, for how often it was reached.
FEATURES_OF_A_PLACE = 8


def read(control):
    """The contents of the files, each with the places that it reached as the bits of a number."""
    with control.open() as lines:
        count = int(next(lines))
        next(lines)
        files = [pathlib.Path(next(lines).rstrip("\n")) for _ in range(count)]
        for line in lines:
            kind, number, *features = line.split()
            if kind == "FT":
                yield files[int(number)].read_bytes(), bits(int(feature) // FEATURES_OF_A_PLACE for feature in features)


def bits(places):
    text = bytearray()
    for place in places:
        if place // 8 >= len(text):
            text.extend(bytes(place // 8 + 1 - len(text)))
        text[place // 8] |= 1 << place % 8
    return int.from_bytes(text, "little")


def choose(reached):
    """The contents that add most to those before, the shortest first, and all that they reach."""
    left = [it for it in reached if len(it[0]) <= BYTES_MAX]
    known, chosen = 0, []
    while left and len(chosen) < FILES_MAX:
        content, places = max(left, key=lambda it: ((it[1] & ~known).bit_count(), -len(it[0]), it[0]))
        if not places & ~known:
            break
        known |= places
        chosen.append(content)
    return chosen, known


control, target = map(pathlib.Path, sys.argv[1:])
reached = list(read(control))
chosen, known = choose(reached)
everything = 0
for _, places in reached:
    everything |= places
target.mkdir(parents=True, exist_ok=True)
for file in target.iterdir():
    file.unlink()
for content in chosen:
    (target / hashlib.sha1(content).hexdigest()).write_bytes(content)
print(f"{target.name}: {len(chosen)} of {len(reached)} inputs, {known.bit_count()} of {everything.bit_count()} places reached")
