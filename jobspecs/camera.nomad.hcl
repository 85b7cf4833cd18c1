# Folders of the node in the container, and a task directly in the job: it becomes a group of one task with the same name.
job "camera" {
  type = "system"

  constraint {
    attribute = "${meta.camera}"
    operator  = "!="
    value     = "none"
  }

  task "recorder" {
    driver       = "docker"
    kill_timeout = "1m"

    config {
      image = "recorder:5"

      volumes = [
        "/srv/recordings:/recordings",
        "/etc/skerry-camera:/etc/camera:ro",
      ]

      # The program itself reads $${...}; nothing of it is filled in.
      args = ["--name", "$${HOSTNAME}-%Y%m%d.mp4"]
    }

    env {
      RETENTION_DAYS = 14

      RULES = <<-EOT
        keep motion
        drop idle
      EOT
    }

    resources {
      cpu    = 500
      memory = 256
    }
  }
}
