# The agent alone: one static program, no shell, no libraries. `packaging/image/build` lays out what is copied here.
FROM scratch
COPY dunlin-agent /usr/bin/dunlin-agent
# A named volume takes owner and mode of what it is mounted over.
COPY --chown=65532:65532 state /var/lib/dunlin-agent
# The variable DUNLIN_JOIN_TOKEN wins over the file, and neither is needed once the node is enrolled.
ENV PATH=/usr/bin DUNLIN_AGENT_JOIN_TOKEN_FILE=/run/secrets/join-token
USER 65532:65532
VOLUME /var/lib/dunlin-agent
# Whether the agent lives, whatever its collector does: one that is replaced would lose what it keeps for that one.
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s CMD ["dunlin-agent", "check", "--alive"]
ENTRYPOINT ["dunlin-agent"]
CMD ["run"]
