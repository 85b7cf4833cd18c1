job "transcode" {
  type        = "batch"
  datacenters = ["dc1"]

  parameterized {
    payload       = "required"
    meta_required = ["profile"]
  }

  group "transcode" {
    task "ffmpeg" {
      driver = "docker"

      dispatch_payload {
        file = "input.json"
      }

      config {
        image = "jrottenberg/ffmpeg:6.1"
        args  = ["-i", "/local/input.json"]
      }
    }
  }
}
