"""The commands of ``diffhw``, one file each; `diffhw.cli` starts them."""
