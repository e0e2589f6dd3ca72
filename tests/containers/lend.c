/* lend AGENT BORROWER: connects to the agent socket, passes the connection over the socket BORROWER (SCM_RIGHTS,
 * unix(7)), and lives until the borrower closes that. */
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int connected(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	strncpy(address.sun_path, path, sizeof(address.sun_path) - 1);
	return connect(fd, (struct sockaddr *)&address, sizeof(address)) ? -1 : fd;
}

int main(int count, char **arguments)
{
	char byte = 'c';
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct iovec part = { &byte, 1 };
	struct msghdr message = {
		.msg_iov = &part,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	int agent, borrower;

	if (count != 3 || (agent = connected(arguments[1])) < 0 || (borrower = connected(arguments[2])) < 0)
		return 1;
	control.header = (struct cmsghdr){ CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS };
	memcpy(CMSG_DATA(&control.header), &agent, sizeof(int));
	if (sendmsg(borrower, &message, 0) != 1)
		return 2;
	return read(borrower, &byte, 1) ? 3 : 0;
}
