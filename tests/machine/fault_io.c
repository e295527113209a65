/* Makes reads, writes and syncs of chosen files fail: for LD_PRELOAD.
 *
 * FAULT_PATH  part of the paths of the files that are struck (/proc/self/fd names them); unset: nothing is
 * FAULT_CALL  "read", "write" or "sync"
 * FAULT_ERRNO the number of the error; 0: reads come back short, by half
 * FAULT_AT    from which such call on (1: the first)
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static int n_seen;

/* 0: go on; 1: fail with errno set; 2: be short */
static int strike(int fd, const char *call)
{
    const char *part = getenv("FAULT_PATH"), *kind = getenv("FAULT_CALL");
    char link[64], path[4096];
    ssize_t n;
    int saved = errno;
    if (!part || !*part || !kind || strcmp(kind, call))
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    n = readlink(link, path, sizeof path - 1);
    errno = saved;
    if (n <= 0)
        return 0;
    path[n] = 0;
    if (!strstr(path, part))
        return 0;
    if (__atomic_add_fetch(&n_seen, 1, __ATOMIC_SEQ_CST) < atoi(getenv("FAULT_AT") ? getenv("FAULT_AT") : "1"))
        return 0;
    saved = atoi(getenv("FAULT_ERRNO") ? getenv("FAULT_ERRNO") : "5");
    if (!saved)
        return 2;
    errno = saved;
    return 1;
}

#define NEXT(name) __typeof__(&name) next = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define HALF(n) ((n) > 1 ? (n) / 2 : (n))

#define READ(name, tail, ...)                                         \
    {                                                                 \
        NEXT(name);                                                   \
        int struck = strike(fd, "read");                              \
        return struck == 1 ? -1 : next(fd, to, struck == 2 ? HALF(n) : n tail); \
    }
#define WRITE(name, tail)                                             \
    {                                                                 \
        NEXT(name);                                                   \
        return strike(fd, "write") == 1 ? -1 : next(fd, from, n tail); \
    }
#define COMMA ,
ssize_t read(int fd, void *to, size_t n) READ(read, )
ssize_t pread(int fd, void *to, size_t n, off_t at) READ(pread, COMMA at)
ssize_t pread64(int fd, void *to, size_t n, off64_t at) READ(pread64, COMMA at)
ssize_t readv(int fd, const struct iovec *to, int n)
{
    NEXT(readv);
    return strike(fd, "read") == 1 ? -1 : next(fd, to, n);
}
ssize_t write(int fd, const void *from, size_t n) WRITE(write, )
ssize_t pwrite(int fd, const void *from, size_t n, off_t at) WRITE(pwrite, COMMA at)
ssize_t pwrite64(int fd, const void *from, size_t n, off64_t at) WRITE(pwrite64, COMMA at)
ssize_t writev(int fd, const struct iovec *from, int n)
{
    NEXT(writev);
    return strike(fd, "write") == 1 ? -1 : next(fd, from, n);
}
ssize_t copy_file_range(int in, off64_t *at, int out, off64_t *to, size_t n, unsigned flags)
{
    NEXT(copy_file_range);
    return strike(in, "read") == 1 || strike(out, "write") == 1 ? -1 : next(in, at, out, to, n, flags);
}
ssize_t sendfile64(int out, int in, off64_t *at, size_t n)
{
    ssize_t (*next)(int, int, off64_t *, size_t) = dlsym(RTLD_NEXT, "sendfile64");
    return strike(in, "read") == 1 || strike(out, "write") == 1 ? -1 : next(out, in, at, n);
}
ssize_t sendfile(int out, int in, off_t *at, size_t n)
{
    ssize_t (*next)(int, int, off_t *, size_t) = dlsym(RTLD_NEXT, "sendfile");
    return strike(in, "read") == 1 || strike(out, "write") == 1 ? -1 : next(out, in, at, n);
}
/* glibc's own streams call write from inside, past these: what C libraries write by fwrite. */
size_t fread(void *to, size_t size, size_t n, FILE *stream)
{
    NEXT(fread);
    return strike(fileno(stream), "read") == 1 ? 0 : next(to, size, n, stream);
}
size_t fwrite(const void *from, size_t size, size_t n, FILE *stream)
{
    NEXT(fwrite);
    return strike(fileno(stream), "write") == 1 ? 0 : next(from, size, n, stream);
}
int fsync(int fd)
{
    NEXT(fsync);
    return strike(fd, "sync") == 1 ? -1 : next(fd);
}
int fdatasync(int fd)
{
    NEXT(fdatasync);
    return strike(fd, "sync") == 1 ? -1 : next(fd);
}
