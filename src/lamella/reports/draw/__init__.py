"""Pictures of slides, and files for QuPath.

heatmap.py     attention of tiles -> a raster in register with the slide
overlay.py     the raster over the thumbnail, with colour bar and scale bar (PNG)
top_tiles.py   the most attended tiles, side by side (PNG)
cam.py         class activation maps: overlay, TIFF, contours
tiff.py        the raster as a pyramidal OME-TIFF that states its resolution
geojson.py     each tile with its attention and rank, for QuPath
slides.py      all pictures of one slide of a run     panels.py    those of a study, in one frame
pictures.py    lettering, scale bars, PNG
"""
