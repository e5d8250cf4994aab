"""Known differences of the local mount-s3, S3 and STS from the originals: the end of a test's id → the reason.

`make test-real` prints the reason, and fails for any other difference. Measured on mount-s3 1.24.0 and MinIO.
"""

from __future__ import annotations

DIFFERENCES: dict[str, str] = {
    "test_mount_credentials.py::test_sts_and_s3_by_boto3": "MinIO's STS has no GetCallerIdentity; AWS and moto do.",
    "test_mount_s3.py::test_a_closed_descriptor_of_a_reader_reads_on_until_somebody_writes": (
        "The original continues to read prefetched data; the imitation does not prefetch, and answers EBADF."
    ),
    "test_mount_s3.py::test_if_missing_keys_are_forbidden_nothing_can_be_created_and_no_folder_entered": (
        "The original requests a folder's listing and an object of the same name at the same time, and enters the "
        "folder if the listing is answered first; the imitation never enters it."
    ),
    "test_mount_s3.py::test_only_so_many_files_can_be_open_for_writing": (
        "The original's limit depends on the machine's memory (more than 400 files with 24 GiB); the imitation always "
        "has the limit of 512 MiB."
    ),
    "test_mount_start.py::test_an_s3_that_does_not_answer_is_asked_again_until_the_time_is_up": (
        "The test shortens the imitation's 30 seconds, which are fixed in the original. The message is the same."
    ),
    "test_mount_start.py::test_it_says_what_it_mounted_and_goes_on_in_the_background": (
        "This build of the original warns that the machine's libfuse is older than its own version."
    ),
    "test_mount_table.py::test_operation[chmod, chown and utime while writing]": (
        "The original shows newly set times until the file's attributes expire, 0.1 s later; the imitation never "
        "shows them."
    ),
    "test_mount_start.py::test_what_is_wrong_is_said": (
        "The original lists with max-keys=0, which MinIO answers with 200 also for a missing bucket: the mount "
        "succeeds."
    ),
    "test_mount_s3.py::test_keys_that_can_be_no_file_are_hidden": "MinIO refuses keys with `.` or `..` as a part.",
    "test_mount_hints.py::test_a_hint_that_works[tar cf a.tar d && tar rf a.tar old]": (
        "MinIO lists times with milliseconds, so tar reports that files changed, and ends before it appends."
    ),
    "test_mount_start.py::test_beside_a_libfuse_of_version_2_it_uses_version_3": (
        "The test is about the library of the imitation; the original is built for libfuse 2."
    ),
    "test_s3_rotation.py::test_three_ends_of_credentials_cost_no_command": (
        "On the original, the credentials of the background loop, which no call renews, can expire during one write."
    ),
}
