import pathlib
import sys

source, target = map(pathlib.Path, sys.argv[1:])
target.mkdir(parents=True)
for page in sorted(source.iterdir()):
    title = page.read_text().strip().lstrip("# ")
    (target / (page.stem + ".html")).write_text(f"<h1>{title}</h1>\n")
