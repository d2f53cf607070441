FROM busy\
box
RU\
N true
