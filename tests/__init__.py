import os

if os.environ.get("TEST_REAL_MOUNT_S3") or os.environ.get("TEST_REAL_S3_ENDPOINT"):
    from tests.real import stand_in

    stand_in.apply()
