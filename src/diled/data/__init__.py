"""Data of any kind as three splits of raw values: folders of images, Parquet, arrays, proteins, text, named sets. NumPy only.

    source -> open_data -> Data(train, validation, test, spec) ; to_model(values, spec) -> [-1, 1] ; from_model is its inverse

| file | what |
|---|---|
| `opening.py` | `open_data`: the way from a source to `Data` |
| `sources.py` | what a name, path, array or list refers to |
| `folder.py` `parquet.py` `arrays.py` `known.py` | one file for each kind of source |
| `lists.py` | lists of numbers in Parquet files |
| `images.py` `pixels.py` | headers and pixels of image files; channels, depth and size |
| `splits.py` `labels.py` | the division into splits; classes and real-valued labels |
| `proteins.py` `text.py` `strings.py` | the alphabet of proteins, the tokens of text; strings as rows of numbers and back |
| `tables.py` `records.py` `faults.py` | lines and tables in files; their records, ids and splits; what has a fault |
| `sequence_sources.py` | whether these hold proteins or text |
| `sequence_files.py` `text_files.py` | FASTA and columns of proteins; columns of text, and its tokenizer |
| `sequence_splits.py` | clusters, mutations, repeated texts and overlaps |
| `known_texts.py` `grammar.py` | named sets of sentences; a grammar that makes some |
| `scale.py` | the measure, and model space |
| `examples.py` `sequence_examples.py` | what a user hands to a trained model |
| `cache.py` | decoded arrays of the named sets |
| `synthesis.py` `shards.py` `indexing.py` | synthetic training sets: manifest, Parquet shards, samples that exist already |
"""

from diled._callable import make_callable
from diled.data.examples import open_examples, read_examples, read_named_examples
from diled.data.known import KNOWN, known_sets
from diled.data.opening import open_data
from diled.data.scale import from_model, to_model, to_pil
from diled.data.splits import Data, Split
from diled.data.strings import from_strings, read_texts, texts_and_faults, to_strings

__all__ = [
    "KNOWN",
    "Data",
    "Split",
    "from_model",
    "from_strings",
    "known_sets",
    "open_data",
    "open_examples",
    "read_examples",
    "read_named_examples",
    "read_texts",
    "texts_and_faults",
    "to_model",
    "to_pil",
    "to_strings",
]

make_callable(__name__, "data")
