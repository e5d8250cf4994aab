"""File operations inside the workspace, run in the sandbox: one request in, one JSON-able answer out.

``main({"root": "/mnt/workspaces/ns", "op": ..., "path": ..., ...})``. Paths are relative to the root, ``"."``
for the root itself. Sizes are in bytes, times in nanoseconds (``mtime_ns``) or seconds (``timeout_s``).
Names that are not UTF-8 travel as lone surrogates (``surrogateescape``), which ASCII-only JSON carries.

========  ====================================================  =======================================================
op        request (default)                                     answer, beside ``ok: true``
========  ====================================================  =======================================================
read      offset (1), limit (2000), limit_bytes, max_bytes      path, body, first, last, lines, cut, lossy, newline,
                                                                bom, bytes, mtime_ns, sha256
write     content: bytes, or content_from + content_sha256,     path, created, unchanged, bytes, sha256
          overwrite (false), expected_sha256 (null), max_bytes
edit      old, new, replace_all (false), max_bytes,             path, count, at: [line], snippet, bytes, sha256,
          expected_sha256 (null)                                before_sha256
list      limit, limit_bytes                                    path, entries: [[name, kind, bytes, mtime_ns, target]],
                                                                total, more
glob      pattern, limit, limit_bytes, timeout_s                paths: [[path, kind, bytes, mtime_ns]], total, more,
                                                                timed_out, skipped: [path]
grep      pattern, glob (null), mode, before, after, limit,     engine, rows, more, timed_out, skipped: [path]
          ignore_case (false), limit_bytes, timeout_s,
          tool_path (PATH)
delete    -                                                     path, kind, bytes
========  ====================================================  =======================================================

``kind`` is ``file``, ``dir``, ``link`` or ``other``. ``rows`` of grep: ``[path]`` in mode ``files_with_matches``,
``[path, count]`` in ``count``, ``[path, line, is_match, text]`` in ``content``. ``more``: a limit left something out.

A refusal is ``{"ok": false, "error": code, ...facts}``:
``missing``, ``outside`` (a symlink or ``..`` leaves the workspace), ``loop``, ``is_directory``, ``not_a_directory``,
``not_regular`` (kind), ``binary`` (bytes, what), ``too_large`` (bytes, max_bytes), ``past_end`` (lines),
``exists_unread`` (bytes), ``changed``, ``not_found`` (hint, line), ``not_unique`` (count, at), ``identical``, ``empty``,
``not_text``, ``not_empty`` (count), ``is_root``, ``bad_path``, ``bad_glob`` (text), ``bad_pattern`` (text), ``no_tool``,
``search_failed`` (text), ``staging`` (the upload is missing or damaged), ``busy`` (kept changing underneath),
``write_failed`` (errno, text, state, bytes), ``os`` (errno, text).
``state`` after a failed write: ``unchanged`` or ``restored`` (the old content is there), ``absent``, ``partial``
(``bytes`` are there now), ``unknown``.
"""
