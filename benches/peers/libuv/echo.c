/* libuv: one loop, one read buffer for all connections. Whole messages of a read leave in one write. echo MODE PATH */
#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

enum { READ = 64 << 10, LONGEST = 1 << 20, BACKLOG = 4096 };

static char input[READ];
static int local;

struct connection {
    union {
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    } as;
    /* the part of a message that has arrived */
    char *part;
    size_t length;
};

struct answer {
    uv_write_t request;
    char bytes[];
};

static void check(int status) {
    if (status < 0) {
        fprintf(stderr, "%s\n", uv_strerror(status));
        exit(1);
    }
}

static void on_closed(uv_handle_t *handle) {
    struct connection *connection = handle->data;
    free(connection->part);
    free(connection);
}

static void hang_up(struct connection *connection) {
    uv_handle_t *handle = (uv_handle_t *)&connection->as.stream;
    if (!uv_is_closing(handle)) uv_close(handle, on_closed);
}

static void on_written(uv_write_t *request, int status) {
    if (status < 0) hang_up(request->handle->data);
    free(request);
}

static void on_buffer(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer) {
    (void)handle, (void)suggested;
    *buffer = uv_buf_init(input, READ);
}

/* Bytes of whole messages at the start, or -1 where one is too long. */
static ssize_t whole(const char *bytes, size_t length) {
    size_t end = 0;
    while (length - end >= 4) {
        uint32_t prefix;
        memcpy(&prefix, bytes + end, 4);
        prefix = ntohl(prefix);
        if (prefix > LONGEST) return -1;
        if (length - end - 4 < prefix) break;
        end += 4 + prefix;
    }
    return (ssize_t)end;
}

static void send_back(struct connection *connection, char *bytes, size_t length) {
    uv_buf_t buffer = uv_buf_init(bytes, (unsigned)length);
    int written = uv_try_write(&connection->as.stream, &buffer, 1);
    if (written == UV_EAGAIN) written = 0;
    if (written < 0) {
        hang_up(connection);
    } else if ((size_t)written < length) {
        struct answer *answer = malloc(sizeof *answer + length - written);
        memcpy(answer->bytes, bytes + written, length - written);
        buffer = uv_buf_init(answer->bytes, (unsigned)(length - written));
        check(uv_write(&answer->request, &connection->as.stream, &buffer, 1, on_written));
    }
}

static void on_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *buffer) {
    struct connection *connection = stream->data;
    if (count < 0) hang_up(connection);
    if (count <= 0) return;
    char *bytes = buffer->base, *joined = NULL;
    size_t length = (size_t)count;
    if (connection->length > 0) {
        joined = realloc(connection->part, connection->length + length);
        memcpy(joined + connection->length, bytes, length);
        bytes = joined;
        length += connection->length;
        connection->part = NULL;
        connection->length = 0;
    }
    ssize_t end = whole(bytes, length);
    if (end < 0) {
        hang_up(connection);
    } else {
        if (end > 0) send_back(connection, bytes, (size_t)end);
        if ((size_t)end < length) {
            connection->length = length - (size_t)end;
            connection->part = malloc(connection->length);
            memcpy(connection->part, bytes + end, connection->length);
        }
    }
    free(joined);
}

static void on_connection(uv_stream_t *listener, int status) {
    if (status < 0) return;
    struct connection *connection = calloc(1, sizeof *connection);
    if (local) {
        check(uv_pipe_init(listener->loop, &connection->as.pipe, 0));
    } else {
        check(uv_tcp_init(listener->loop, &connection->as.tcp));
    }
    connection->as.stream.data = connection;
    if (uv_accept(listener, &connection->as.stream) < 0) {
        hang_up(connection);
        return;
    }
    if (!local) uv_tcp_nodelay(&connection->as.tcp, 1);
    check(uv_read_start(&connection->as.stream, on_buffer, on_read));
}

/* It ends with its standard input. */
static void watch(void *unused) {
    char byte;
    (void)unused;
    if (read(0, &byte, 1) <= 0) _exit(0);
}

int main(int count, char **arguments) {
    if (count != 3) return 2;
    uv_loop_t *loop = uv_default_loop();
    static struct connection listener;
    uv_thread_t thread;
    local = strcmp(arguments[1], "unix") == 0;
    if (local) {
        check(uv_pipe_init(loop, &listener.as.pipe, 0));
        check(uv_pipe_bind(&listener.as.pipe, arguments[2]));
    } else {
        struct sockaddr_in address;
        check(uv_tcp_init(loop, &listener.as.tcp));
        check(uv_ip4_addr("127.0.0.1", 0, &address));
        check(uv_tcp_bind(&listener.as.tcp, (struct sockaddr *)&address, 0));
    }
    check(uv_listen(&listener.as.stream, BACKLOG, on_connection));
    if (local) {
        puts(arguments[2]);
    } else {
        struct sockaddr_in bound;
        int size = sizeof bound;
        check(uv_tcp_getsockname(&listener.as.tcp, (struct sockaddr *)&bound, &size));
        printf("127.0.0.1:%d\n", ntohs(bound.sin_port));
    }
    fflush(stdout);
    check(uv_thread_create(&thread, watch, NULL));
    return uv_run(loop, UV_RUN_DEFAULT);
}
