"""Run as a child: opens HDF5 files and reads their attributes, which HDF5 does not survive on some damaged files."""

import h5py

from lamella.children import Child, serve

CHILD = Child("lamella.features.h5_child", seconds=20.0)


def read_all_attributes(path: str) -> str:
    """Read every attribute of a file and of what lies directly in it; damage that raises is the parent's to tell."""
    try:
        with h5py.File(path, "r") as file:
            for thing in (file, *(file[name] for name in file)):
                for name in thing.attrs:
                    thing.attrs[name]
    except Exception as error:  # noqa: BLE001 - the parent meets the same and names it
        return type(error).__name__
    return ""


if __name__ == "__main__":
    serve(read_all_attributes)
