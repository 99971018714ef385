"""How light can an image CNN become and still tell five rice varieties apart?

The library behind the chapters: data, models, FLOPs, training, measurement and plots. Importing it does not
import TensorFlow; the modules that need it import it when they are used.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("riceutils")
except PackageNotFoundError:  # run from a source folder that was never installed
    __version__ = "0+source"
