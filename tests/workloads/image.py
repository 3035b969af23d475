"""Makes an image around the static busybox, as `ctr images import` takes it: no registry, no builder.

usage: image.py OUT.tar NAME:TAG
"""
import hashlib
import io
import json
import sys
import tarfile

APPLETS = ["sh", "dd", "httpd", "sleep", "wget"]
FOLDERS = ["bin", "dev", "etc", "proc", "sys", "tmp", "www"]


def add(tar, name, content=None, kind=tarfile.REGTYPE, mode=0o755, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.linkname, info.size = kind, mode, target, len(content or b"")
    tar.addfile(info, io.BytesIO(content or b""))


def layer():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for folder in FOLDERS:
            add(tar, folder, kind=tarfile.DIRTYPE)
        with open("/usr/bin/busybox", "rb") as busybox:
            add(tar, "bin/busybox", busybox.read())
        for applet in APPLETS:
            add(tar, f"bin/{applet}", kind=tarfile.SYMTYPE, target="busybox")
        add(tar, "www/index.html", b"hello\n", mode=0o644)
    return buffer.getvalue()


def main(path, reference):
    content = layer()
    digest = hashlib.sha256(content).hexdigest()
    config = json.dumps({
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": ["/bin/sleep", "600"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }).encode()
    name = hashlib.sha256(config).hexdigest() + ".json"
    manifest = [{"Config": name, "RepoTags": [reference], "Layers": ["layer.tar"]}]
    with tarfile.open(path, "w") as tar:
        add(tar, name, config, mode=0o644)
        add(tar, "layer.tar", content, mode=0o644)
        add(tar, "manifest.json", json.dumps(manifest).encode(), mode=0o644)


main(*sys.argv[1:])
