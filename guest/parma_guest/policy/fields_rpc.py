"""The same for every field of every message of parma.agent.v1.Agent (docs/fields.md).

Answers are the guest's own values: constant, whatever the host says.
"""

from __future__ import annotations

from typing import Final

from parma_guest.policy.fields import table

RPC: Final = table(
    """
SetPolicyRequest.policy judged HOST_DATA: its SHA-256 must be what the report says
SetPolicyRequest.certificates bounded handed on to containers, at most 256 KiB; whoever uses them verifies them
SetPolicyRequest.reference_info bounded handed on to containers, at most 256 KiB; whoever uses it verifies it
LoadFragmentRequest.envelope judged load_fragment, load_transparency_trust_list
LoadFragmentRequest.media_type judged load_fragment, load_transparency_trust_list (chooses between the two)
SetupSandboxRequest.sandbox_id bounded 64 hexadecimal digits; the first call that names one fixes it
SetupSandboxRequest.hostname bounded 1 to 255 of A-Z a-z 0-9 _ . -
SetupSandboxRequest.interfaces bounded at most one, once, before the first container
SetupSandboxRequest.routes bounded through that interface, none that captures loopback
SetupSandboxRequest.sysctls bounded namespaced settings of an allow-list
Interface.mac bounded must be a device that the VM has
Interface.name bounded 1 to 15 of A-Z a-z 0-9 _ . -
Interface.mtu bounded 576 to 65535
Interface.addresses bounded at most 16, none of loopback
Route.destination bounded a network outside loopback
Route.gateway bounded an address, or empty
Route.source bounded one of the interface's addresses, or empty
Route.metric bounded 32 bits
Sysctl.name bounded from the allow-list (parma_guest.net.sysctls)
Sysctl.value bounded 256 plain characters
PutFilesRequest.entries bounded at most 4096, 64 MiB; opened beneath the pod's directory, through no link
PutFilesRequest.replace bounded a directory beneath sandboxMounts/
FileEntry.path bounded a network file, or beneath sandboxMounts/
FileEntry.kind bounded file, directory, link, directory in memory
FileEntry.mode bounded permission bits; set-group-id and sticky of a directory
FileEntry.uid bounded 32 bits
FileEntry.gid bounded 32 bits
FileEntry.content bounded at most 4 MiB of a file; policies judge where a container sees it
FileEntry.append bounded continues a file that is there
FileEntry.size bounded of a directory in memory, at most what the VM has
ScsiAddress.controller bounded 0 to 3; what the disk says is judged, not where it is
ScsiAddress.lun bounded 0 to 16383; what the disk says is judged, not where it is
MountScratchRequest.device bounded a SCSI address
MountScratchRequest.target judged rw_mount_device
MountScratchRequest.encrypted judged rw_mount_device; anything but true is refused by the agent besides
MountScratchRequest.filesystem judged rw_mount_device; anything but ext4 is refused by the agent besides
UnmountScratchRequest.target judged rw_unmount_device
MountLayerRequest.device bounded a SCSI address; the root hash is read from the disk and judged by mount_device
MountLayerRequest.target judged mount_device
UnmountLayerRequest.target judged unmount_device
MountOverlayRequest.container_id judged mount_overlay
MountOverlayRequest.layer_paths judged mount_overlay
MountOverlayRequest.target judged mount_overlay
MountOverlayRequest.scratch_path judged scratch_mount
UnmountOverlayRequest.container_id bounded must be the overlay's own container
UnmountOverlayRequest.target judged unmount_overlay, scratch_unmount
Stdio.stdin bounded the id of a channel stream; withheld where the policy withholds standard streams
Stdio.stdout bounded the id of a channel stream; withheld where the policy withholds standard streams
Stdio.stderr bounded the id of a channel stream; withheld where the policy withholds standard streams
CreateContainerRequest.container_id judged create_container
CreateContainerRequest.oci_spec judged create_container (each field by its own row)
CreateContainerRequest.privileged judged create_container
CreateContainerRequest.share_pod_pid bounded its own pid namespace, or the pod's, never the guest's
CreateContainerRequest.stdio bounded channel streams
CreateContainerRequest.terminal_width bounded 0 to 65535
CreateContainerRequest.terminal_height bounded 0 to 65535
StartContainerRequest.container_id bounded starts, once, what create_container judged
ExecProcessRequest.container_id judged exec_in_container
ExecProcessRequest.exec_id bounded 1 to 128 of A-Z a-z 0-9 _ . -
ExecProcessRequest.oci_process judged exec_in_container (each field by its own row)
ExecProcessRequest.stdio bounded channel streams
ExecProcessRequest.terminal_width bounded 0 to 65535
ExecProcessRequest.terminal_height bounded 0 to 65535
ExecExternalRequest.exec_id bounded 1 to 128 of A-Z a-z 0-9 _ . -
ExecExternalRequest.args judged exec_external
ExecExternalRequest.env judged exec_external
ExecExternalRequest.working_dir judged exec_external
ExecExternalRequest.stdio bounded channel streams
SignalProcessRequest.container_id judged signal_container_process
SignalProcessRequest.exec_id judged signal_container_process (the command that the agent remembers for it)
SignalProcessRequest.signal judged signal_container_process
SignalProcessRequest.all judged signal_container_process (for each process that the agent started)
ShutdownContainerRequest.container_id judged shutdown_container
WaitProcessRequest.container_id bounded a process that exists
WaitProcessRequest.exec_id bounded a process that exists
NextEventRequest.after bounded a sequence number
ResizeTerminalRequest.container_id bounded a process that exists
ResizeTerminalRequest.exec_id bounded a process that exists
ResizeTerminalRequest.width bounded 0 to 65535
ResizeTerminalRequest.height bounded 0 to 65535
Resources.memory_limit bounded at most the VM's memory
Resources.memory_reservation bounded at most the VM's memory
Resources.memory_swap constant the VM has no swap
Resources.cpu_shares bounded 2 to 262144
Resources.cpu_quota bounded at most the period times the VM's processors
Resources.cpu_period bounded 1000 to 1000000
Resources.cpuset_cpus bounded those that the VM has
Resources.pids_limit bounded less than 0 is no limit
UpdateResourcesRequest.container_id bounded a container that exists
UpdateResourcesRequest.resources bounded as on creation
StatsRequest.container_id judged get_properties
ListProcessesRequest.container_id judged get_properties
ForwardPortRequest.port judged port_forward
ForwardPortRequest.stream bounded the id of a channel stream
"""
)
"""Requests and the messages inside them; requests without a field have no row."""

ANSWERS: Final = "the guest's own value, capped in size"
"""Every field of a message whose name ends in Response, and of those that only answers hold."""
ANSWER_MESSAGES: Final = frozenset(
    {"OutOfMemory", "CpuStats", "MemoryStats", "PidsStats", "IoStats", "MemoryEvents"}
)


def is_answer(message: str) -> bool:
    """Whether the guest alone fills the message."""
    return message.endswith("Response") or message in ANSWER_MESSAGES
