/* step.base64 is this, by gcc -Os -static -nostdlib -fno-pic -no-pie -fno-stack-protector -fno-asynchronous-unwind-tables
   -fcf-protection=none -Wl,-N,--build-id=none,-z,noseparate-code -s */
static long call(long n, long a, long b, long c, long d, long e) {
    register long r10 __asm__("r10") = d, r8 __asm__("r8") = e;
    __asm__ volatile("syscall" : "+a"(n) : "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8) : "rcx", "r11", "memory");
    return n;
}
static char text[256];
/* With a path and a name: sets the attribute to what is read; tells it if nothing is.
   With a path: asks the agent there for its keys, then to remove them. */
__attribute__((used)) static int run(long count, char **words) {
    if (count == 3) {
        long path = (long)words[1], name = (long)words[2], size = call(0, 0, (long)text, 256, 0, 0);
        if (size > 0) return call(188, path, name, (long)text, size, 0) != 0;
        size = call(191, path, name, (long)text, 256, 0);
        return size < 0 || call(1, 1, (long)text, size, 0, 0) != size;
    }
    struct { short family; char path[108]; } to = {1, {0}};
    for (int i = 0; i < 107 && words[1][i]; i++) to.path[i] = words[1][i];
    long agent = call(41, 1, 1, 0, 0, 0);
    if (call(42, agent, (long)&to, sizeof to, 0, 0)) return 1;
    char asks[] = {0, 0, 0, 1, 11, 0, 0, 0, 1, 19};
    for (int i = 0; i < 10; i += 5) {
        call(1, agent, (long)asks + i, 5, 0, 0);
        for (long got = 0, n; got < 4 || got < 4 + text[3]; got += n)
            if ((n = call(0, agent, (long)text + got, (got < 4 ? 4 : 4 + text[3]) - got, 0, 0)) <= 0) return 1;
        char shown[] = {'0' + text[4] / 10, '0' + text[4] % 10, '\n'};
        call(1, 1, (long)shown, 3, 0, 0);
    }
    return 0;
}
__asm__(".globl _start\n_start: mov (%rsp),%rdi\nlea 8(%rsp),%rsi\nand $-16,%rsp\ncall run\nmov %eax,%edi\nmov $60,%eax\nsyscall");
