// Reports which process connects, binds, and sends, at the moment when it does so.
//
// Programs on the root of the cgroup2 hierarchy see each socket of the host once per connection, never per packet:
//
//   connect4/6, sendmsg4/6, post_bind4/6   run in the process itself: note it as the owner of the socket
//   sockops                                a TCP connection gets its local port (before its SYN), and is closed
//   getpeername4/6                         run in the process that accepts a connection and asks for its other end
//   sock_create                            runs in the process that opens a raw or an ICMP socket
//   sock_release                           a UDP socket is closed, so that both its ends are known
//
// A process is described once, when it first appears: name, path and cgroup are copied here, because a process that
// lives for five milliseconds cannot be read from /proc afterwards. User space reads one ring buffer. An event that
// does not fit is counted, and costs a name.
//
// Structures of the kernel are declared with the fields that are read alone; their offsets are relocated when the
// program is loaded (CO-RE), so it needs no header of the running kernel.

#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define AF_INET 2
#define AF_INET6 10
#define SOCK_RAW 3
#define IPPROTO_ICMP 1
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define IPPROTO_ICMPV6 58

// A path has at most so many parts, mount points included, and a cgroup so many. Longer parts are cut.
#define PATH_DEPTH 20
#define CGROUP_DEPTH 8
#define PART_BYTES 96

#define OWNERS 16384
#define DESCRIBED 8192
#define RING_BYTES (1 << 20)

char program_license[] SEC("license") = "Dual MIT/GPL";

#define KERNEL __attribute__((preserve_access_index))

struct qstr {
	const unsigned char *name;
} KERNEL;
struct dentry {
	struct qstr d_name;
	struct dentry *d_parent;
} KERNEL;
struct vfsmount {
	struct dentry *mnt_root;
} KERNEL;
struct mount {
	struct mount *mnt_parent;
	struct dentry *mnt_mountpoint;
	struct vfsmount mnt;
} KERNEL;
struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
} KERNEL;
struct file {
	struct path f_path;
} KERNEL;
struct mm_struct {
	struct file *exe_file;
} KERNEL;
struct kernfs_node {
	const char *name;
	struct kernfs_node *__parent;
} KERNEL;
// Before Linux 6.15.
struct kernfs_node___old {
	struct kernfs_node *parent;
} KERNEL;
struct cgroup {
	struct kernfs_node *kn;
} KERNEL;
struct cgroup_subsys_state {
	struct cgroup *cgroup;
} KERNEL;

// One entry for each controller.
struct css_set {
	struct cgroup_subsys_state *subsys[1];
	struct cgroup *dfl_cgrp;
} KERNEL;

// The values are those of the running kernel; where it lacks a controller, it has no value.
enum cgroup_subsys_id {
	pids_cgrp_id = 0,
	memory_cgrp_id = 1,
	devices_cgrp_id = 2,
};
struct task_struct {
	int tgid;
	struct task_struct *group_leader;
	struct task_struct *real_parent;
	unsigned long long start_boottime;
	struct mm_struct *mm;
	struct css_set *cgroups;
	char comm[16];
} KERNEL;
// `self_exec_id` was 32 bits wide before Linux 5.7.
struct task_struct___exec {
	unsigned long long self_exec_id;
} KERNEL;

struct in6_addr {
	__u32 words[4];
} KERNEL;
struct sock_common {
	__u32 skc_daddr;
	__u32 skc_rcv_saddr;
	__u16 skc_dport;
	__u16 skc_num;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
} KERNEL;
struct sock {
	struct sock_common __sk_common;
} KERNEL;

enum kind {
	PROCESS = 1,
	OPENED = 2,
	CLOSED = 3,
};

// A program in execution. `exec_id` tells programs of one process apart.
struct process_key {
	__u64 start_ns;
	__u64 exec_id;
	__u32 tgid;
	__u32 uid;
};

struct owner {
	struct process_key process;
	__u64 since_ns;
};

struct process_event {
	__u32 kind;
	__u32 ppid;
	struct process_key process;
	char comm[16];
	// The parts of the path and of the cgroup, from the last to the first. Some are empty.
	char path[PATH_DEPTH][PART_BYTES];
	char cgroup[CGROUP_DEPTH][PART_BYTES];
	// The same of a hierarchy of version 1, which is where a hybrid system names containers.
	char cgroup_v1[CGROUP_DEPTH][PART_BYTES];
};

struct socket_event {
	__u32 kind;
	__u8 family;
	__u8 protocol;
	__u16 local_port;
	__u16 remote_port;
	// Whether it is a raw or an ICMP socket, which has no ports.
	__u8 is_raw;
	__u8 reserved[5];
	__u64 cookie;
	__u64 since_ns;
	__u64 now_ns;
	__u64 namespace;
	struct process_key process;
	__u32 local[4];
	__u32 remote[4];
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, RING_BYTES);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, OWNERS);
	__type(key, __u64);
	__type(value, struct owner);
} owners SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, DESCRIBED);
	__type(key, struct process_key);
	__type(value, __u8);
} described SEC(".maps");

// The number of events that found no room.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} lost SEC(".maps");

// A description is written here first, because a program has 512 bytes of stack.
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct process_event);
} scratch SEC(".maps");

static __always_inline void count_lost(void)
{
	__u32 zero = 0;
	__u64 *count = bpf_map_lookup_elem(&lost, &zero);
	if (count)
		__sync_fetch_and_add(count, 1);
}

static __always_inline void describe_path(struct process_event *event, struct task_struct *task)
{
	struct file *file = BPF_CORE_READ(task, mm, exe_file);
	struct dentry *dentry = BPF_CORE_READ(file, f_path.dentry);
	struct vfsmount *vfs = BPF_CORE_READ(file, f_path.mnt);
	struct mount *mount = (void *)vfs - bpf_core_field_offset(struct mount, mnt);
	for (int depth = 0; depth < PATH_DEPTH; depth++) {
		struct dentry *root = BPF_CORE_READ(mount, mnt.mnt_root);
		struct dentry *parent = BPF_CORE_READ(dentry, d_parent);
		event->path[depth][0] = 0;
		if (dentry != root && dentry != parent) {
			bpf_probe_read_kernel_str(event->path[depth], PART_BYTES, BPF_CORE_READ(dentry, d_name.name));
			dentry = parent;
			continue;
		}
		// The root of a mount: go on at the place where it is mounted.
		dentry = BPF_CORE_READ(mount, mnt_mountpoint);
		mount = BPF_CORE_READ(mount, mnt_parent);
	}
}

static __always_inline struct kernfs_node *parent_of(struct kernfs_node *node)
{
	if (bpf_core_field_exists(node->__parent))
		return BPF_CORE_READ(node, __parent);
	return BPF_CORE_READ((struct kernfs_node___old *)node, parent);
}

static __always_inline void describe_cgroup(char (*parts)[PART_BYTES], struct kernfs_node *node)
{
	for (int depth = 0; depth < CGROUP_DEPTH; depth++) {
		parts[depth][0] = 0;
		bpf_probe_read_kernel_str(parts[depth], PART_BYTES, BPF_CORE_READ(node, name));
		node = parent_of(node);
	}
}

// The cgroup of a controller, unless it is the root.
static __always_inline struct kernfs_node *controller_cgroup(struct css_set *set, __u64 controller)
{
	struct cgroup_subsys_state *state = 0;
	void *states = (void *)set + bpf_core_field_offset(struct css_set, subsys);

	bpf_probe_read_kernel(&state, sizeof(state), states + controller * sizeof(state));
	struct kernfs_node *node = BPF_CORE_READ(state, cgroup, kn);
	return parent_of(node) ? node : 0;
}

static __always_inline struct kernfs_node *cgroup_v1(struct css_set *set)
{
	struct kernfs_node *node = 0;

	if (bpf_core_enum_value_exists(enum cgroup_subsys_id, pids_cgrp_id))
		node = controller_cgroup(set, bpf_core_enum_value(enum cgroup_subsys_id, pids_cgrp_id));
	if (!node && bpf_core_enum_value_exists(enum cgroup_subsys_id, memory_cgrp_id))
		node = controller_cgroup(set, bpf_core_enum_value(enum cgroup_subsys_id, memory_cgrp_id));
	if (!node && bpf_core_enum_value_exists(enum cgroup_subsys_id, devices_cgrp_id))
		node = controller_cgroup(set, bpf_core_enum_value(enum cgroup_subsys_id, devices_cgrp_id));
	return node;
}

// Describes a process. A function of its own, so that the programs share it.
static __attribute__((noinline)) int describe(struct process_key *key)
{
	__u32 zero = 0;
	struct process_event *event = bpf_map_lookup_elem(&scratch, &zero);

	if (!event || !key)
		return 0;
	struct task_struct *thread = (void *)bpf_get_current_task();
	struct task_struct *task = BPF_CORE_READ(thread, group_leader);
	struct css_set *set = BPF_CORE_READ(task, cgroups);

	event->kind = PROCESS;
	event->process = *key;
	event->ppid = BPF_CORE_READ(task, real_parent, tgid);
	BPF_CORE_READ_INTO(&event->comm, task, comm);
	describe_path(event, task);
	describe_cgroup(event->cgroup, BPF_CORE_READ(set, dfl_cgrp, kn));
	describe_cgroup(event->cgroup_v1, cgroup_v1(set));
	if (bpf_ringbuf_output(&events, event, sizeof(*event), BPF_RB_NO_WAKEUP)) {
		count_lost();
		return 0;
	}
	__u8 one = 1;
	bpf_map_update_elem(&described, key, &one, BPF_ANY);
	return 0;
}

// The process that runs now. Describes it if it is new.
static __always_inline struct process_key current_process(void)
{
	struct task_struct *thread = (void *)bpf_get_current_task();
	struct task_struct *task = BPF_CORE_READ(thread, group_leader);
	struct process_key key = {
		.start_ns = BPF_CORE_READ(task, start_boottime),
		.tgid = bpf_get_current_pid_tgid() >> 32,
		.uid = (__u32)bpf_get_current_uid_gid(),
	};
	struct task_struct___exec *exec = (void *)task;
	bpf_core_read(&key.exec_id, bpf_core_field_size(exec->self_exec_id) == 4 ? 4 : 8, &exec->self_exec_id);

	if (!bpf_map_lookup_elem(&described, &key))
		describe(&key);
	return key;
}

static __always_inline void submit(struct socket_event *event)
{
	if (bpf_ringbuf_output(&events, event, sizeof(*event), BPF_RB_NO_WAKEUP))
		count_lost();
}

// Notes the process that runs now as the owner of a socket.
static __always_inline struct owner note_owner(__u64 cookie)
{
	struct owner owner = { .process = current_process(), .since_ns = bpf_ktime_get_ns() };
	bpf_map_update_elem(&owners, &cookie, &owner, BPF_ANY);
	return owner;
}

// The parts of an event that do not depend on the hook.
static __always_inline struct socket_event event_of(enum kind kind, struct owner *owner, __u64 namespace)
{
	struct socket_event event = { .kind = kind };

	event.since_ns = owner->since_ns;
	event.now_ns = kind == OPENED ? owner->since_ns : bpf_ktime_get_ns();
	event.namespace = namespace;
	event.process = owner->process;
	return event;
}

// The verifier lets a program of one family read the addresses of that family alone.
static __always_inline void local_end(struct socket_event *event, struct bpf_sock *sock, __u32 family)
{
	event->family = family;
	event->protocol = sock->protocol;
	event->local_port = sock->src_port;
	if (family == AF_INET) {
		event->local[0] = sock->src_ip4;
	} else {
		event->local[0] = sock->src_ip6[0];
		event->local[1] = sock->src_ip6[1];
		event->local[2] = sock->src_ip6[2];
		event->local[3] = sock->src_ip6[3];
	}
}

static __always_inline int is_of_interest(__u32 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP;
}

static __always_inline int connects(struct bpf_sock_addr *ctx)
{
	if (is_of_interest(ctx->protocol))
		note_owner(bpf_get_socket_cookie(ctx));
	return 1;
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	return connects(ctx);
}

SEC("cgroup/connect6")
int connect6(struct bpf_sock_addr *ctx)
{
	return connects(ctx);
}

// Runs for each datagram with an address of its own. The first one of a socket names it; it may receive from anybody,
// so its remote end stays open.
static __always_inline int sends(struct bpf_sock_addr *ctx)
{
	__u64 cookie = bpf_get_socket_cookie(ctx);
	if (ctx->protocol != IPPROTO_UDP || bpf_map_lookup_elem(&owners, &cookie))
		return 1;
	struct bpf_sock *sock = ctx->sk;
	if (!sock)
		return 1;
	struct owner owner = note_owner(cookie);
	struct socket_event event = event_of(OPENED, &owner, bpf_get_netns_cookie(ctx));
	local_end(&event, sock, sock->family);
	submit(&event);
	return 1;
}

SEC("cgroup/sendmsg4")
int sendmsg4(struct bpf_sock_addr *ctx)
{
	return sends(ctx);
}

SEC("cgroup/sendmsg6")
int sendmsg6(struct bpf_sock_addr *ctx)
{
	return sends(ctx);
}

static __always_inline int binds(struct bpf_sock *ctx, __u32 family)
{
	if (!is_of_interest(ctx->protocol) || ctx->type == SOCK_RAW)
		return 1;
	struct owner owner = note_owner(bpf_get_socket_cookie(ctx));
	struct socket_event event = event_of(OPENED, &owner, bpf_get_netns_cookie(ctx));
	local_end(&event, ctx, family);
	submit(&event);
	return 1;
}

SEC("cgroup/post_bind4")
int post_bind4(struct bpf_sock *ctx)
{
	return binds(ctx, AF_INET);
}

SEC("cgroup/post_bind6")
int post_bind6(struct bpf_sock *ctx)
{
	return binds(ctx, AF_INET6);
}

// accept() with room for an address runs this on the new socket, and getpeername() on any. A connection that the process
// opened itself has its owner already.
static __always_inline int asks_for_peer(struct bpf_sock_addr *ctx)
{
	__u64 cookie = bpf_get_socket_cookie(ctx);
	struct bpf_sock *sock = ctx->sk;

	if (ctx->protocol != IPPROTO_TCP || !sock || bpf_map_lookup_elem(&owners, &cookie))
		return 1;
	struct owner owner = note_owner(cookie);
	struct socket_event event = event_of(OPENED, &owner, bpf_get_netns_cookie(ctx));
	__u32 family = sock->family;
	local_end(&event, sock, family);
	event.remote_port = bpf_ntohs(sock->dst_port);
	if (family == AF_INET) {
		event.remote[0] = sock->dst_ip4;
	} else {
		event.remote[0] = sock->dst_ip6[0];
		event.remote[1] = sock->dst_ip6[1];
		event.remote[2] = sock->dst_ip6[2];
		event.remote[3] = sock->dst_ip6[3];
	}
	if (event.remote_port)
		submit(&event);
	return 1;
}

SEC("cgroup/getpeername4")
int getpeername4(struct bpf_sock_addr *ctx)
{
	return asks_for_peer(ctx);
}

SEC("cgroup/getpeername6")
int getpeername6(struct bpf_sock_addr *ctx)
{
	return asks_for_peer(ctx);
}

static __always_inline int is_raw(struct bpf_sock *sock)
{
	return sock->type == SOCK_RAW || sock->protocol == IPPROTO_ICMP || sock->protocol == IPPROTO_ICMPV6;
}

SEC("cgroup/sock_create")
int creates(struct bpf_sock *ctx)
{
	if (!is_raw(ctx) || (ctx->family != AF_INET && ctx->family != AF_INET6))
		return 1;
	__u64 cookie = bpf_get_socket_cookie(ctx);
	struct owner owner = note_owner(cookie);
	struct socket_event event = event_of(OPENED, &owner, bpf_get_netns_cookie(ctx));
	event.family = ctx->family;
	event.protocol = ctx->protocol;
	event.is_raw = 1;
	event.cookie = cookie;
	submit(&event);
	return 1;
}

// A TCP connection of a known owner.
static __always_inline void connection(struct bpf_sock_ops *ctx, enum kind kind)
{
	__u64 cookie = bpf_get_socket_cookie(ctx);
	struct owner *owner = bpf_map_lookup_elem(&owners, &cookie);
	if (!owner)
		return;
	struct socket_event event = event_of(kind, owner, bpf_get_netns_cookie(ctx));
	event.family = ctx->family;
	event.protocol = IPPROTO_TCP;
	event.local_port = ctx->local_port;
	event.remote_port = bpf_ntohs(ctx->remote_port >> 16);
	if (ctx->family == AF_INET) {
		event.local[0] = ctx->local_ip4;
		event.remote[0] = ctx->remote_ip4;
	} else {
		event.local[0] = ctx->local_ip6[0];
		event.local[1] = ctx->local_ip6[1];
		event.local[2] = ctx->local_ip6[2];
		event.local[3] = ctx->local_ip6[3];
		event.remote[0] = ctx->remote_ip6[0];
		event.remote[1] = ctx->remote_ip6[1];
		event.remote[2] = ctx->remote_ip6[2];
		event.remote[3] = ctx->remote_ip6[3];
	}
	submit(&event);
	if (kind == CLOSED)
		bpf_map_delete_elem(&owners, &cookie);
}

SEC("sockops")
int changes(struct bpf_sock_ops *ctx)
{
	switch (ctx->op) {
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
		break;
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		connection(ctx, OPENED);
		bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
		break;
	case BPF_SOCK_OPS_STATE_CB:
		if (ctx->args[1] == BPF_TCP_CLOSE)
			connection(ctx, CLOSED);
		break;
	}
	return 1;
}

SEC("cgroup/sock_release")
int releases(struct bpf_sock *ctx)
{
	__u64 cookie = bpf_get_socket_cookie(ctx);
	struct owner *owner = bpf_map_lookup_elem(&owners, &cookie);
	if (!owner)
		return 1;
	// The verifier hides the ends of the socket here, so they are read from the kernel's structure, which the context is.
	struct sock *sock = (void *)ctx;
	__u16 remote_port = BPF_CORE_READ(sock, __sk_common.skc_dport);
	// A connection goes on after its descriptor is closed, until it is closed itself.
	if (ctx->protocol == IPPROTO_TCP && remote_port && ctx->type != SOCK_RAW)
		return 1;
	struct socket_event event = event_of(CLOSED, owner, bpf_get_netns_cookie(ctx));
	event.family = ctx->family;
	event.protocol = ctx->protocol;
	event.is_raw = is_raw(ctx);
	event.cookie = cookie;
	event.local_port = BPF_CORE_READ(sock, __sk_common.skc_num);
	event.remote_port = bpf_ntohs(remote_port);
	if (ctx->family == AF_INET) {
		event.local[0] = BPF_CORE_READ(sock, __sk_common.skc_rcv_saddr);
		event.remote[0] = BPF_CORE_READ(sock, __sk_common.skc_daddr);
	} else {
		BPF_CORE_READ_INTO(&event.local, sock, __sk_common.skc_v6_rcv_saddr);
		BPF_CORE_READ_INTO(&event.remote, sock, __sk_common.skc_v6_daddr);
	}
	submit(&event);
	bpf_map_delete_elem(&owners, &cookie);
	return 1;
}
