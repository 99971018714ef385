"""How light can an image CNN become and still tell five rice varieties apart?

The library behind the chapters: data, models, FLOPs, training, measurement and plots. Importing it does not
import TensorFlow; the modules that need it import it when they are used.
"""

import logging
from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("riceutils")
except PackageNotFoundError:  # run from a source folder that was never installed
    __version__ = "0+source"

# TensorFlow takes the prediction functions of different models for one that is traced again and again, and tells a
# notebook so among the results of its cells.
logging.getLogger("tensorflow").addFilter(lambda record: "triggered tf.function retracing" not in record.getMessage())
