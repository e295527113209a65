"""10. Report: what came out, as pictures, files for QuPath, and one page.

    heatmap.py     attention of tiles -> a raster in register with the slide
    overlay.py     the raster over the thumbnail, with colour bar and scale bar (PNG)
    top_tiles.py   the most attended tiles, side by side (PNG)
    tiff.py        the raster as a pyramidal OME-TIFF that states its resolution
    geojson.py     each tile with its attention and rank, for QuPath
    figures.py     charts, as SVG text
    record.py      a finished run folder, read back: the one place that knows its file names and keys
    page.py        the run folder as one self-contained HTML page
    pseudonyms.py  identifiers as salted hashes, for what is passed on (`lamella.renaming` renames with them)

Nothing here imports torch: results open on a laptop.
"""
