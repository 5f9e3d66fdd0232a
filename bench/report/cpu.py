"""The CPU's generation, which the name that a virtual machine tells of it ("AMD EPYC") often leaves out."""

import pathlib
import re

# {(vendor, family): ((first model, last model, name), ..)}
GENERATIONS = {
    ("AuthenticAMD", 23): ((0x00, 0x2F, "Zen"), (0x30, 0xFF, "Zen 2")),
    ("AuthenticAMD", 25): ((0x00, 0x0F, "Zen 3"), (0x10, 0x1F, "Zen 4"), (0x20, 0x5F, "Zen 3"), (0x60, 0xFF, "Zen 4")),
    ("AuthenticAMD", 26): ((0x00, 0xFF, "Zen 5"),),
    ("GenuineIntel", 6): ((85, 85, "Skylake or Cascade Lake"), (106, 108, "Ice Lake"), (143, 143, "Sapphire Rapids"),
                          (173, 174, "Granite Rapids"), (207, 207, "Emerald Rapids")),
}


def with_generation(name, cpuinfo=None):
    """The name, with the generation behind it, or else family and model; as it is where the system says neither."""
    if cpuinfo is None:
        try:
            cpuinfo = pathlib.Path("/proc/cpuinfo").read_text()
        except OSError:
            cpuinfo = ""
    said = dict(re.findall(r"^(vendor_id|cpu family|model)\s*: (.+)$", cpuinfo, re.MULTILINE))
    if len(said) < 3:
        return name
    family, model = int(said["cpu family"]), int(said["model"])
    known = GENERATIONS.get((said["vendor_id"], family), ())
    return f"{name} ({next((g for low, high, g in known if low <= model <= high), f'family {family}, model {model}')})"
