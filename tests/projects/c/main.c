#include <stdio.h>

#include "greet.h"

int main(int argc, char **argv) {
    printf("%s %s, this is %s\n", GREETING, argc > 1 ? argv[1] : "world", VERSION);
    return 0;
}
